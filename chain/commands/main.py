"""The `chain` command: local network, administration, projects, proposals, wallets, tokens and verifiers."""

from __future__ import annotations

from chain.commands.options import program


@program("chain")
def main() -> None:
    """Read and use the OpenResearch program on Solana: projects, proposals, tokens, wallets.

    Without --network, commands use the practice network: local, no real tokens, kept under --home.
    """


for _name in ("admin", "irys", "localnet", "project", "proposal", "wallet", "token", "verifier", "watch"):
    main.add_lazy(_name, f"chain.commands.{_name}")


if __name__ == "__main__":
    main()
