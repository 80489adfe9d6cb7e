"""The program's images: built byte for byte from the source, accepted by the real loader, linked strictly."""

from __future__ import annotations

import base64
import shutil
import struct
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import FeatureSet, LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.system_program import CreateAccountParams, create_account
from solders.transaction import Transaction
from solders.transaction_metadata import FailedTransactionMetadata, TransactionMetadata

from chain.network.base import CLOCK_SYSVAR
from chain.program import PROGRAM_ID, build, image
from chain.program.accounts import GlobalConfig, decode_account
from chain.program.addresses import METADATA_PROGRAM, RENT_SYSVAR, Pdas, token_metadata
from chain.program.instructions import Initialize, RemoveVerifier, instruction_of
from chain.program.link import LinkError, Version, link, murmur3
from tests.chain.svm import World, key, place
from tests.support import require

LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
PAYER = key("deployer")
VERSIONS: tuple[Version, ...] = (0, 3)


@pytest.fixture(scope="module", autouse=True)
def _compiler() -> None:
    try:
        found = version("ziglang")
    except PackageNotFoundError:
        found = ""
    require(found == build.ZIG, "the compiler (uv sync --group program)")


def compiled(folder: Path, source: str) -> bytes:
    """The object of a few lines of C that may use sbf.h."""
    shutil.copyfile(build.HERE / "sbf.h", folder / "sbf.h")
    (folder / "p.c").write_text('#include "sbf.h"\n' + source)
    return build.compile_object("p.c", folder)


# --- the images ---


def test_the_images_are_those_of_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.build() == {build.HERE / f"openresearch-v{number}.so": image(number) for number in VERSIONS}
    assert build.main(["--check"]) == 0
    assert capsys.readouterr().err == ""


def test_a_stale_image_is_found_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*build.SOURCES, "openresearch-v0.so"):
        shutil.copyfile(build.HERE / name, tmp_path / name)
    (tmp_path / "openresearch-v3.so").write_bytes(image(3)[:-1] + bytes([image(3)[-1] ^ 1]))
    monkeypatch.setattr(build, "HERE", tmp_path)
    assert build.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "openresearch-v3.so" in said
    assert "openresearch-v0.so" not in said
    assert build.main([]) == 0
    assert (tmp_path / "openresearch-v3.so").read_bytes() == image(3)
    assert build.main(["--help"]) == 2


def test_there_is_no_other_image() -> None:
    with pytest.raises(ValueError, match="SBPF version 1"):
        image(1)


# --- deployment ---


def run(svm: LiteSVM, instructions: list[Instruction], *signers: Keypair) -> TransactionMetadata:
    """One transaction that the deployer pays; AssertionError with the logs where it fails."""
    svm.expire_blockhash()
    blockhash = svm.latest_blockhash()
    message = Message.new_with_blockhash(instructions, PAYER.pubkey(), blockhash)
    result = svm.send_transaction(Transaction([PAYER, *signers], message, blockhash))
    if isinstance(result, FailedTransactionMetadata):
        raise AssertionError("\n".join(result.meta().logs()))
    return result


def deploy(svm: LiteSVM, elf: bytes) -> Pubkey:
    """A program the way a cluster gets it: a buffer, its writes, DeployWithMaxDataLen."""
    svm.airdrop(PAYER.pubkey(), 10**13)
    payer, buffer, program = PAYER.pubkey(), key("buffer"), key("program")
    data_address = Pubkey.find_program_address([bytes(program.pubkey())], LOADER)[0]

    def new(account: Keypair, space: int) -> Instruction:
        lamports = svm.minimum_balance_for_rent_exemption(space)
        return create_account(
            CreateAccountParams(
                from_pubkey=payer, to_pubkey=account.pubkey(), lamports=lamports, space=space, owner=LOADER
            )
        )

    def loader(data: bytes, *accounts: tuple[Pubkey, bool, bool]) -> Instruction:
        return Instruction(LOADER, data, [AccountMeta(*account) for account in accounts])

    buffer_meta, authority = (buffer.pubkey(), False, True), (payer, True, False)
    start = loader(struct.pack("<I", 0), buffer_meta, (payer, False, False))
    run(svm, [new(buffer, 37 + len(elf)), start], buffer)
    for at in range(0, len(elf), 900):
        chunk = elf[at : at + 900]
        run(svm, [loader(struct.pack("<IIQ", 1, at, len(chunk)) + chunk, buffer_meta, authority)])
    finish = loader(
        struct.pack("<IQ", 2, len(elf)),
        (payer, True, True),
        (data_address, False, True),
        (program.pubkey(), False, True),
        buffer_meta,
        (RENT_SYSVAR, False, False),
        (CLOCK_SYSVAR, False, False),
        (SYSTEM_PROGRAM, False, False),
        authority,
    )
    run(svm, [new(program, 36), finish], program)
    svm.warp_to_slot(svm.get_clock().slot + 10)  # a program runs from the slot after its deployment on
    return program.pubkey()


def machine(features: str) -> LiteSVM:
    """A VM with mainnet's features or with all there are."""
    svm = LiteSVM.default()
    chosen = svm.mainnet_feature_set() if features == "mainnet" else FeatureSet.all_enabled()
    svm = svm.with_feature_set(chosen).with_builtins().with_lamports(10**18).with_sysvars().with_feature_accounts()
    return svm.with_default_programs().with_sigverify(True).with_blockhash_check(True)


@pytest.mark.parametrize(("number", "features"), [(0, "mainnet"), (3, "mainnet"), (3, "all")])
def test_the_loader_takes_the_image(number: int, features: str) -> None:
    svm = machine(features)
    program = deploy(svm, image(number))
    run(svm, [instruction_of(program, Initialize(), PAYER.pubkey())])
    account = svm.get_account(Pdas(program).config())
    assert account is not None
    assert decode_account(GlobalConfig, account.data).authority == PAYER.pubkey()


@pytest.mark.parametrize(("number", "features"), [(0, "mainnet"), (3, "mainnet"), (0, "all"), (3, "all")])
def test_a_whole_life_with_these_features(number: int, features: str) -> None:
    """v0 still runs where it can no longer be deployed."""
    world = World(version=number, svm=machine(features)).ready().submitted()
    world.run(world.claim_review(), world.approve())
    world.run(world.submit(4, number=1), world.claim_review(1))
    world.run(world.reject(1))
    world.run(world.token_account(world.verifier), world.claim_reward(), world.sell(3))
    authority, verifier = world.authority.pubkey(), world.verifier.pubkey()
    world.run(instruction_of(PROGRAM_ID, RemoveVerifier(verifier), authority))
    assert world.tokens(world.verifier) == 2
    assert not world.exists(world.pdas.verifier_entry(verifier))


def test_the_loader_refuses_v0_with_all_features() -> None:
    """Why there is an image for v3."""
    with pytest.raises(AssertionError, match=r"[Ii]nvalid account data|ELF error|[Uu]nsupported"):
        deploy(machine("all"), image(0))


@pytest.mark.parametrize("number", VERSIONS)
@pytest.mark.parametrize(
    "source",
    [
        "u64 entrypoint(u8 *p) { return rd64(p); }",
        "u64 entrypoint(u8 *p) { static const u64 TABLE[] = {0, 7, 9}; return TABLE[rd64(p)]; }",
        "u64 entrypoint(u8 *p) { sol_log_(p, 1); return 0; }",
    ],
    ids=["code only", "constants", "a system call"],
)
def test_the_smallest_programs_deploy_and_run(tmp_path: Path, source: str, number: Version) -> None:
    svm = machine("mainnet")
    program = deploy(svm, link(compiled(tmp_path, source), number))
    run(svm, [Instruction(program, b"", [])])


# --- Metaplex ---

_METADATA = """
typedef struct PACKED { u8 key[32]; u8 writable, signer; } Seen;
u64 entrypoint(u8 *input) { /* logs what it was called with */
  Input in;
  parse(input, &in);
  Seen seen[7];
  for (u64 i = 0; i < 7; i++) {
    sol_memcpy_(seen[i].key, in.acc[i].key, 32);
    seen[i].writable = in.acc[i].writable;
    seen[i].signer = in.acc[i].signer;
  }
  Slice out[] = {{in.data, in.len}, {(u8 *)seen, sizeof seen}};
  sol_log_data(out, in.n == 7 ? 2 : 1);
  return 0;
}
"""


def test_metadata_is_created_where_metaplex_is(tmp_path: Path) -> None:
    """The call's data and accounts, as Metaplex' CreateMetadataAccountV3 has them."""
    world = World().ready()
    world.svm.add_program(METADATA_PROGRAM, link(compiled(tmp_path, _METADATA), 0))
    instruction = world.create_project(1, token_name="Autoresearch MLX", token_symbol="ARMLX")
    outcome = world.send(instruction)
    assert outcome.error is None, outcome.logs
    inside = outcome.logs[outcome.logs.index(f"Program {METADATA_PROGRAM} invoke [2]") + 1]
    data, seen = (base64.b64decode(part) for part in inside.removeprefix("Program data: ").split())
    text = b"".join(struct.pack("<I", len(word)) + word for word in (b"Autoresearch MLX", b"ARMLX", b""))
    # fee 0; no creators, collection, uses; not mutable; no collection details
    assert data == bytes([33]) + text + bytes(2 + 3 + 1 + 1)
    pdas = world.pdas
    wanted = [
        (token_metadata(pdas.mint(1)), True, False),
        (pdas.mint(1), True, False),  # writable in the transaction; the call itself asks for less
        (pdas.mint_authority(1), False, True),
        (world.creator.pubkey(), True, True),
        (pdas.mint_authority(1), False, True),
        (SYSTEM_PROGRAM, False, False),
        (RENT_SYSVAR, False, False),
    ]
    found = [(Pubkey(raw[:32]), bool(raw[32]), bool(raw[33])) for raw in (seen[i : i + 34] for i in range(0, 238, 34))]
    assert [meta for meta in found if meta[0] != pdas.mint(1)] == [meta for meta in wanted if meta[0] != pdas.mint(1)]
    assert found[1][0] == pdas.mint(1)
    assert world.send(instruction).error is not None
    assert place("create_project", "metadata_program") == 10


# --- linking ---


def test_system_calls_have_the_hashes_the_loader_knows() -> None:
    assert {name: murmur3(name) for name in (b"abort", b"sol_log_", b"sol_panic_")} == {
        b"abort": 0xB6FC1A11,
        b"sol_log_": 0x207559BD,
        b"sol_panic_": 0x686093BB,
    }


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("u64 count = 3; u64 entrypoint(u8 *p) { return count += *p; }", r"no mutable globals.*\bcount\b"),
        ("static u64 seen; u64 entrypoint(u8 *p) { return seen += *p; }", r"no mutable globals.*\bseen\b"),
        ("u64 missing(u64); u64 entrypoint(u8 *p) { return missing(*p); }", "'missing' called in entrypoint"),
        ("extern u8 far[]; u64 entrypoint(u8 *p) { return far[*p]; }", "'far' used as data in entrypoint"),
        ("u64 start(u8 *p) { return *p; }", "no function 'entrypoint'"),
    ],
)
@pytest.mark.parametrize("number", VERSIONS)
def test_what_cannot_be_linked_is_named(tmp_path: Path, source: str, problem: str, number: Version) -> None:
    with pytest.raises(LinkError, match=problem):
        link(compiled(tmp_path, source), number)


def test_what_does_not_compile_is_said(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match=r"p\.c does not compile:\n.*error"):
        compiled(tmp_path, "u64 entrypoint(u8 *p) { return q; }")


_SMALL = """
static const char *const WORDS[] = {"no", "yes"};
noinline u64 helper(u64 n) { return n / 3; }
u64 entrypoint(u8 *p) { sol_log_((const u8 *)WORDS[*p & 1], 2); return helper(*p); }
"""


@pytest.mark.parametrize(
    ("opcode", "problem"),
    [
        (0x34, "32-bit arithmetic"),
        (0x56, "32-bit jump"),
        (0xDB, "atomic operation"),
        (0x81, "BPF v4 instruction"),
        (0x55, "jump out of the program"),
    ],
)
def test_what_the_machine_would_refuse_names_its_function(tmp_path: Path, opcode: int, problem: str) -> None:
    code = compiled(tmp_path, _SMALL)
    divide = bytes([0x37, 1]) + bytes(2) + struct.pack("<I", 3)  # r1 /= 3, in helper
    divide = next(form for form in (divide, bytes([0x37, 0]) + divide[2:]) if form in code)
    assert code.count(divide) == 1
    broken = code.replace(divide, bytes([opcode, 1]) + struct.pack("<hI", 1000, 3))
    with pytest.raises(LinkError, match=rf"{problem} \(opcode {opcode:#04x}\) in helper"):
        link(broken, 0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small object that links."""
    code = compiled(tmp_path_factory.mktemp("small"), _SMALL)
    assert link(code, 0) != link(code, 3)
    return code


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(VERSIONS))
def test_a_damaged_object_is_a_link_error_or_a_program(small: bytes, data: st.DataObject, number: Version) -> None:
    damaged = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(LinkError):
        assert link(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]), number)[:4] == b"\x7fELF"
