"""`chain irys`: price and pay for storage, store files, fetch and verify them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from chain.commands import amount, connected, irys_option, keypair_option
from chain.commands.options import Commands, Whole, agrees, answer, common, home_option, json_option, reading, signing

if TYPE_CHECKING:
    from chain.irys.funding import Deposit

MAX_UPLOAD = 256 << 20  # bytes; a file is signed in memory
_CONTENT_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".tar": "application/x-tar",
    ".tsv": "text/tab-separated-values",
    ".log": "text/plain",
    ".txt": "text/plain",
    ".md": "text/plain",
}


@click.group(cls=Commands)
def irys() -> None:
    """Store files on Irys, fetch and verify them.

    Uploads are paid from a balance with the uploader: `price` shows what a file costs, `fund` deposits SOL, `upload`
    stores the file. The embedded network has its own local node, where everything is free.
    """


@irys.command(examples=("chain irys price 1048576", "chain irys price 1048576 --network mainnet"))
@reading
@irys_option
@click.argument("size", metavar="BYTES", type=Whole(0, 10**15))
def price(home: Path, network: str, as_json: bool, irys: str | None, size: int) -> None:
    """Show what an upload of BYTES costs.

    Signature and tags add about 300 bytes to a file.
    """
    from chain.network.base import sol

    with connected(network, home, irys) as connection:
        lamports = connection.irys.price(size)
        uploader = connection.irys.endpoints.uploader
        document = {"bytes": size, "lamports": lamports, "uploader": uploader}
        answer(as_json, document, f"{sol(lamports)} for {size} bytes at {uploader}")


@irys.command(examples=("chain irys balance", "chain irys balance --keypair authority --network devnet"))
@reading
@irys_option
@keypair_option("miner")
@click.option("--address", metavar="ADDRESS", help="Show this address instead of a wallet of yours.")
def balance(
    home: Path, network: str, as_json: bool, irys: str | None, keypair: str | None, address: str | None
) -> None:
    """Show a wallet's balance with the uploader."""
    from solders.pubkey import Pubkey

    from chain.connection.opening import MINER
    from chain.network.base import sol

    with connected(network, home, irys) as connection:
        try:
            key = Pubkey.from_string(address) if address else connection.address(keypair, MINER)
        except ValueError:
            raise click.BadParameter(f"{address!r} is not a Solana address", param_hint="--address") from None
        lamports = connection.irys.balance(key)
        uploader = connection.irys.endpoints.uploader
        document = {"address": str(key), "lamports": lamports, "uploader": uploader}
        answer(as_json, document, f"{key} has {sol(lamports)} with {uploader}")


@irys.command(
    examples=("chain irys fund 0.01 --network devnet", "chain irys fund --lamports 250000 --yes", "chain irys fund")
)
@common
@irys_option
@keypair_option("miner")
@click.option("--yes", is_flag=True, help="Pay without asking.")
@amount
def fund(
    home: Path,
    network: str,
    as_json: bool,
    irys: str | None,
    keypair: str | None,
    yes: bool,
    lamports: int | None,
) -> None:
    """Deposit SOL with the uploader.

    Without an amount, finish what an earlier run began. The transfer is recorded before it is sent: if the command
    stops or loses its connection, the next run waits until that deposit is final, has it credited, and pays nothing
    new.
    """
    from chain.connection.opening import MINER, ensure_funds
    from chain.errors import ChainError
    from chain.irys.funding import Funding, needed
    from chain.network.base import sol

    with connected(network, home, irys) as connection:
        key, uploader = connection.wallet(keypair, MINER), connection.irys.endpoints.uploader
        funding = Funding(connection.client, connection.irys, key, home, say=lambda line: click.echo(line, err=True))
        address = connection.irys.deposit_address()
        if lamports and not funding.open():
            ensure_funds(connection.network, key.pubkey(), needed(lamports))
            where = f"{address}, the deposit address of {uploader}, on {connection.network.name}"
            click.echo(f"{sol(lamports)} from {key.pubkey()} to {where}", err=True)
            if not (yes or agrees("Transfer it?")):
                raise ChainError("Cancelled. Nothing was sent.", "Agree when asked, or add --yes.")
        done = funding.fund(lamports or 0, address)
        held = connection.irys.balance(key.pubkey())
        lines = [f"{deposit.state}  {sol(deposit.lamports)}  {deposit.signature}" for deposit in done.resumed]
        if done.paid:
            lines.append(f"{done.paid.state}  {sol(done.paid.lamports)}  {done.paid.signature}")
        elif lamports:
            lines.append("Finished an earlier deposit; nothing new was paid. Run the command again to deposit more.")
        elif not done.resumed:
            lines.append("No deposit is open.")
        lines.append(f"balance {sol(held)} with {uploader}")
        document = {
            "resumed": [_deposit(deposit) for deposit in done.resumed],
            "paid": _deposit(done.paid) if done.paid else None,
            "balance": held,
            "uploader": uploader,
        }
        answer(as_json, document, "\n".join(lines))


def _deposit(deposit: Deposit) -> dict[str, object]:
    return {"signature": deposit.signature, "lamports": deposit.lamports, "state": deposit.state.value}


@irys.command(
    examples=(
        "chain irys upload trace.jsonl --role minerTrace",
        "chain irys upload code.tar --role proposalCode --json",
    )
)
@signing
@irys_option
@keypair_option("miner")
@click.option(
    "--role", metavar="ROLE", required=True, help="Kind of file: protocol, repoSnapshot, proposalCode, minerTrace, …"
)
@click.option("--content-type", metavar="TYPE", help="Media type. [default: from the file name]")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def upload(
    home: Path,
    network: str,
    as_json: bool,
    irys: str | None,
    keypair: str | None,
    role: str,
    content_type: str | None,
    file: Path,
) -> None:
    """Sign FILE and store it with OpenResearch's tags.

    The uploader's receipt is verified. The same file, wallet and role give the same ID, so repeating an upload stores
    nothing twice and costs nothing.
    """
    from hashlib import sha256

    from chain.connection.opening import MINER
    from chain.errors import ChainError
    from chain.irys.client import artifact_tags
    from chain.irys.dataitem import DataItem

    if file.stat().st_size > MAX_UPLOAD:
        raise ChainError(f"{file} has {file.stat().st_size:,} bytes; the limit is {MAX_UPLOAD:,}.", "Split the file.")
    data = file.read_bytes()
    kind = content_type or _CONTENT_TYPES.get(file.suffix.lower(), "application/octet-stream")
    with connected(network, home, irys) as connection:
        tags = artifact_tags(role, sha256(data).digest(), kind)
        item = DataItem.sign(connection.wallet(keypair, MINER), data, tags)
        click.echo(f"uploading {item.size} bytes as {item.id}", err=True)
        receipt = connection.irys.upload(item)
        document = {
            "id": str(item.id),
            "sha256": item.sha256.hex(),
            "bytes": item.size,
            "contentType": kind,
            "receipt": receipt.json() if receipt else None,
        }
        stored = "stored, receipt verified" if receipt else "already stored"
        answer(as_json, document, f"id      {item.id}\nsha256  {item.sha256.hex()}\n{stored}")


@irys.command(
    examples=("chain irys get ITEM_ID -o train.tar --sha256 HEX", "chain irys get ITEM_ID -o train.tar --owner ADDRESS")
)
@reading
@irys_option
@click.option("--sha256", metavar="HEX", help="Required SHA-256, as recorded on chain.")
@click.option("--owner", metavar="ADDRESS", help="Address that must have signed it.")
@click.option("--gateway", "gateways", multiple=True, metavar="URL", help="Ask this gateway first. Repeatable.")
@click.option("--max-bytes", default=64 << 20, show_default=True, metavar="BYTES", type=Whole(1), help="Size limit.")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="New file to write.",
)
@click.argument("item_id", metavar="ID")
def get(
    home: Path,
    network: str,
    as_json: bool,
    irys: str | None,
    sha256: str | None,
    owner: str | None,
    gateways: tuple[str, ...],
    max_bytes: int,
    output: Path,
    item_id: str,
) -> None:
    """Fetch an item, verify it, then write it to a file.

    With --sha256, the content must have that hash; it comes from the cache or from the first gateway that has it.
    Without it, the owner's signature over content and tags must be valid.
    """
    from solders.pubkey import Pubkey

    from chain.errors import ChainError
    from common.files import write_atomic

    if output.exists():
        raise ChainError(f"{output} already exists.", "Choose another file, or delete that one.")
    expected, signer = _digest(sha256), None
    try:
        signer = bytes(Pubkey.from_string(owner)) if owner else None
    except ValueError:
        raise click.BadParameter(f"{owner!r} is not a Solana address", param_hint="--owner") from None
    with connected(network, home, irys) as connection:
        client = connection.irys.preferring(gateways)
        if expected:
            found = client.fetch_verified(
                item_id, sha256=expected, owner=signer, max_bytes=max_bytes, require_signature=signer is not None
            )
        else:
            found = client.fetch_signed(item_id, owner=signer, max_bytes=max_bytes)
        write_atomic(output, found.data)
        by = str(Pubkey.from_bytes(found.owner)) if found.owner else None
        document = {
            "file": str(output),
            "bytes": len(found.data),
            "sha256": found.sha256.hex(),
            "owner": by,
            "tags": [{"name": name, "value": value} for name, value in found.tags],
        }
        lines = [f"{output}: {len(found.data)} bytes, SHA-256 {found.sha256.hex()}"]
        lines.append(f"signed by {by}" if by else "signature not checked: no gateway sent the metadata")
        lines += [f"{name}: {value}" for name, value in found.tags]
        answer(as_json, document, "\n".join(lines))


def _digest(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        digest = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise click.BadParameter(f"{text[:80]!r} is not 64 hex digits", param_hint="--sha256")
    return digest


@irys.command(examples=("chain irys cache", "chain irys cache --verify --prune 1000000000"))
@home_option
@json_option
@click.option("--verify", is_flag=True, help="Check every file and remove damaged ones.")
@click.option("--prune", metavar="BYTES", type=Whole(0), help="Remove the least recently used beyond BYTES.")
def cache(home: Path, as_json: bool, verify: bool, prune: int | None) -> None:
    """Show, verify or prune the cache of content.

    Everything in it can be fetched again, and is hashed again before it is used.
    """
    from chain.irys.store import ContentCache

    kept = ContentCache(home / "cache")
    damaged = kept.damaged() if verify else []
    for digest in damaged:
        kept.remove(digest)
    pruned = 0 if prune is None else kept.prune(prune)
    entries = kept.entries()
    total = sum(size for _, size in entries)
    lines = [f"{kept.folder}: {len(entries)} files, {total} bytes"]
    if verify:
        lines.append(f"{len(damaged)} damaged, removed")
    if prune is not None:
        lines.append(f"{pruned} removed to keep at most {prune} bytes")
    document = {
        "folder": str(kept.folder),
        "files": len(entries),
        "bytes": total,
        "damaged": [digest.hex() for digest in damaged],
        "pruned": pruned,
    }
    answer(as_json, document, "\n".join(lines))


@irys.command(examples=("chain irys node", "chain irys node --price 10 --free 0"))
@home_option
@click.option("--port", default=8909, show_default=True, type=Whole(0, 65535), help="Port to listen on.")
@click.option("--price", metavar="LAMPORTS", default=0, show_default=True, type=Whole(0), help="Price of a byte.")
@click.option(
    "--free",
    metavar="BYTES",
    default=100 << 10,
    show_default=True,
    type=Whole(0),
    help="Size up to which an item is free.",
)
def node(home: Path, port: int, price: int, free: int) -> None:
    """Serve a local Irys node on 127.0.0.1 until Ctrl-C.

    With --price, uploads over --free bytes need a balance, deposited by transfers on the home's ledger: try
    `chain irys fund` with --network localnet (from `chain localnet`) and --irys URL.
    """
    from chain.irys.accounts import FREE, Tariff
    from chain.irys.node import serve
    from chain.network.embedded import EmbeddedNetwork

    embedded = EmbeddedNetwork(home)
    try:
        tariff = Tariff(price, free) if price else FREE
        with serve(home / "irys", port=port, tariff=tariff, network=embedded) as running:
            click.echo(f"irys     {running.url}")
            click.echo("Press Ctrl-C to stop. State is kept.", err=True)
            try:
                running.wait()
            except KeyboardInterrupt:
                click.echo("stopped", err=True)
    finally:
        embedded.close()
