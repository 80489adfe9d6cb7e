"""`chain irys`: what storage costs, pay for it, store files and fetch them verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from chain.commands import KEYPAIR, connected, irys_option
from chain.commands.options import answer, common, home_option, json_option

if TYPE_CHECKING:
    from chain.irys.funding import Deposit

MAX_UPLOAD = 256 << 20  # bytes of a file that is uploaded: it is signed in memory
_CONTENT_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".tar": "application/x-tar",
    ".tsv": "text/tab-separated-values",
    ".log": "text/plain",
    ".txt": "text/plain",
    ".md": "text/plain",
}
keypair_option = click.option("--keypair", help=KEYPAIR + " [default: miner]")


@click.group()
def irys() -> None:
    """Store files on Irys and fetch them, verified.

    Uploads are paid from a balance with the uploader: `price` tells what a file costs, `fund` deposits lamports,
    `upload` stores. The embedded network brings a local node of its own, where everything is free.
    """


@irys.command()
@common
@irys_option
@click.argument("size", metavar="BYTES", type=click.IntRange(0, 10**15))
def price(home: Path, network: str, as_json: bool, irys: str | None, size: int) -> None:
    """What an upload of BYTES costs, in lamports.

    An item is its file and about 300 bytes of signature and tags.
    """
    with connected(network, home, irys) as connection:
        lamports = connection.irys.price(size)
        uploader = connection.irys.endpoints.uploader
        document = {"bytes": size, "lamports": lamports, "uploader": uploader}
        answer(as_json, document, f"{lamports} lamports for {size} bytes at {uploader}")


@irys.command()
@common
@irys_option
@keypair_option
@click.option("--address", help="Another wallet's address, instead of a keypair.")
def balance(
    home: Path, network: str, as_json: bool, irys: str | None, keypair: str | None, address: str | None
) -> None:
    """What a wallet has deposited with the uploader, in lamports."""
    from solders.pubkey import Pubkey

    from chain.connection.opening import MINER

    with connected(network, home, irys) as connection:
        try:
            key = Pubkey.from_string(address) if address else connection.wallet(keypair, MINER).pubkey()
        except ValueError:
            raise click.BadParameter(f"{address!r} is not a Solana address", param_hint="--address") from None
        lamports = connection.irys.balance(key)
        uploader = connection.irys.endpoints.uploader
        document = {"address": str(key), "lamports": lamports, "uploader": uploader}
        answer(as_json, document, f"{key} has {lamports} lamports with {uploader}")


@irys.command()
@common
@irys_option
@keypair_option
@click.option("--yes", is_flag=True, help="Pay without asking.")
@click.argument("lamports", type=click.IntRange(1), required=False)
def fund(
    home: Path,
    network: str,
    as_json: bool,
    irys: str | None,
    keypair: str | None,
    yes: bool,
    lamports: int | None,
) -> None:
    """Deposit LAMPORTS with the uploader; without an amount, finish what an earlier run began.

    The transfer's signature is on disk before it is sent. Stop the command or lose the connection at any moment:
    the next run finds the deposit, waits until it is final and has it credited, and pays nothing new.
    """
    from chain.connection.opening import MINER, ensure_funds
    from chain.irys.funding import Funding, needed
    from chain.network.base import LAMPORTS_PER_SOL

    with connected(network, home, irys) as connection:
        key, uploader = connection.wallet(keypair, MINER), connection.irys.endpoints.uploader
        funding = Funding(connection.client, connection.irys, key, home, say=lambda line: click.echo(line, err=True))
        address = connection.irys.deposit_address()
        if lamports and not funding.open():
            ensure_funds(connection.network, key.pubkey(), needed(lamports))
            question = (
                f"Transfer {lamports} lamports ({lamports / LAMPORTS_PER_SOL:.9f} SOL) from {key.pubkey()} to "
                f"{address}, the deposit address of {uploader}, on {connection.network.name}?"
            )
            if not yes:
                click.confirm(question, abort=True, err=True)
        done = funding.fund(lamports or 0, address)
        held = connection.irys.balance(key.pubkey())
        lines = [f"{deposit.state}  {deposit.lamports} lamports  {deposit.signature}" for deposit in done.resumed]
        if done.paid:
            lines.append(f"{done.paid.state}  {done.paid.lamports} lamports  {done.paid.signature}")
        elif lamports:
            lines.append("An earlier deposit was finished and nothing new was paid; run it again to deposit more.")
        elif not done.resumed:
            lines.append("Nothing is open.")
        lines.append(f"balance {held} lamports with {uploader}")
        document = {
            "resumed": [_deposit(deposit) for deposit in done.resumed],
            "paid": _deposit(done.paid) if done.paid else None,
            "balance": held,
            "uploader": uploader,
        }
        answer(as_json, document, "\n".join(lines))


def _deposit(deposit: Deposit) -> dict[str, object]:
    return {"signature": deposit.signature, "lamports": deposit.lamports, "state": deposit.state.value}


@irys.command()
@common
@irys_option
@keypair_option
@click.option("--role", required=True, help="What the file is: protocol, repoSnapshot, proposalCode, minerTrace, …")
@click.option("--content-type", help="Its media type. [default: by the file's name]")
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
    """Sign FILE with a wallet and store it, with the tags that OpenResearch clients look for.

    The uploader's receipt is verified. The same file, wallet and role give the same id, so a repeated upload
    stores nothing twice and costs nothing.
    """
    from hashlib import sha256

    from chain.connection.opening import MINER
    from chain.errors import ChainError
    from chain.irys.client import artifact_tags
    from chain.irys.dataitem import DataItem

    if file.stat().st_size > MAX_UPLOAD:
        raise ChainError(f"{file} has {file.stat().st_size} bytes, at most {MAX_UPLOAD} are uploaded.", "Split it.")
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
        stored = "stored, receipt verified" if receipt else "was there already"
        answer(as_json, document, f"id      {item.id}\nsha256  {item.sha256.hex()}\n{stored}")


@irys.command()
@common
@irys_option
@click.option("--sha256", help="The content's SHA-256 in hex, as the chain holds it.")
@click.option("--owner", help="The address that must have signed it.")
@click.option("--gateway", "gateways", multiple=True, metavar="URL", help="Ask this gateway first; may be repeated.")
@click.option("--max-bytes", default=64 << 20, show_default=True, type=click.IntRange(1), help="Refuse more than that.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write; must be new."
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
    """Fetch the item ID, verify it, and only then write it.

    With --sha256 the content must have that hash, from the cache or the first gateway that tells the truth.
    Without it the owner's signature over content and tags must be had and hold.
    """
    from solders.pubkey import Pubkey

    from chain.errors import ChainError
    from common.files import write_atomic

    if output.exists():
        raise ChainError(f"{output} exists.", "Name a new file, or remove that one.")
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
        lines.append(f"signed by {by}" if by else "the signature was not checked: no gateway gave what it takes")
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


@irys.command()
@home_option
@json_option
@click.option("--verify", is_flag=True, help="Read everything again and forget what is damaged.")
@click.option("--prune", metavar="BYTES", type=click.IntRange(0), help="Forget the longest unused beyond BYTES.")
def cache(home: Path, as_json: bool, verify: bool, prune: int | None) -> None:
    """What is kept of fetched and uploaded content, by SHA-256.

    Everything in it can be fetched again; what is served from it is hashed again first.
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
        lines.append(f"{len(damaged)} damaged, forgotten")
    if prune is not None:
        lines.append(f"{pruned} forgotten to keep at most {prune} bytes")
    document = {
        "folder": str(kept.folder),
        "files": len(entries),
        "bytes": total,
        "damaged": [digest.hex() for digest in damaged],
        "pruned": pruned,
    }
    answer(as_json, document, "\n".join(lines))


@irys.command()
@home_option
@click.option("--port", default=8909, show_default=True, type=click.IntRange(0, 65535), help="Port of the node.")
@click.option("--price", default=0, show_default=True, type=click.IntRange(0), help="Lamports for a byte.")
@click.option(
    "--free", default=100 << 10, show_default=True, type=click.IntRange(0), help="Bytes up to which an item is free."
)
def node(home: Path, port: int, price: int, free: int) -> None:
    """Serve the home's Irys node on 127.0.0.1 until Ctrl-C, free or paid for.

    With --price uploads over --free bytes need a balance, deposited by transfers on the home's ledger: try
    `chain irys fund` against it, with --network localnet (from `chain localnet`) and --irys URL.
    """
    from chain.irys.accounts import FREE, Tariff
    from chain.irys.node import serve
    from chain.network.embedded import EmbeddedNetwork

    embedded = EmbeddedNetwork(home)
    try:
        tariff = Tariff(price, free) if price else FREE
        with serve(home / "irys", port=port, tariff=tariff, network=embedded) as running:
            click.echo(f"irys     {running.url}")
            click.echo("Ctrl-C stops; nothing is lost.", err=True)
            try:
                running.wait()
            except KeyboardInterrupt:
                click.echo("stopped", err=True)
    finally:
        embedded.close()
