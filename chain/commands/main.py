"""The `chain` command: local network, administration, projects, proposals, wallets, tokens and verifiers."""

from __future__ import annotations

from chain.commands.admin import admin
from chain.commands.irys import irys
from chain.commands.localnet import localnet
from chain.commands.options import program
from chain.commands.project import project
from chain.commands.proposal import proposal
from chain.commands.token import token
from chain.commands.verifier import verifier
from chain.commands.wallet import wallet
from chain.commands.watch import watch


@program("chain")
def main() -> None:
    """Read and use the OpenResearch program on Solana: projects, proposals, tokens, wallets.

    Without --network, commands use the practice network: local, no real tokens, kept under --home.
    """


for _command in (admin, irys, localnet, project, proposal, wallet, token, verifier, watch):
    main.add_command(_command)


if __name__ == "__main__":
    main()
