"""The `chain` command: local network, administration, projects, proposals, wallets, tokens and verifiers."""

from __future__ import annotations

import click

from chain.commands.admin import admin
from chain.commands.irys import irys
from chain.commands.localnet import localnet
from chain.commands.options import Commands, versioned
from chain.commands.project import project
from chain.commands.proposal import proposal
from chain.commands.token import token
from chain.commands.verifier import verifier
from chain.commands.wallet import wallet
from chain.commands.watch import watch


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@versioned
def main() -> None:
    """Look at and act on the OpenResearch program: projects, proposals, tokens, wallets.

    Without --network everything happens on the embedded local network under --home.
    """


for _command in (admin, irys, localnet, project, proposal, wallet, token, verifier, watch):
    main.add_command(_command)


if __name__ == "__main__":
    main()
