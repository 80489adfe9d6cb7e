"""Where `verifier` starts."""

from common.starting import Starting


def main() -> None:
    """Run the command line, whose imports take a while."""
    with Starting():
        from verifier.cli import main as run
    run()


if __name__ == "__main__":
    main()
