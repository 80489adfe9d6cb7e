"""The encrypted form of a key: opens with its passphrase only, unaltered only, and asks for bounded work."""

from __future__ import annotations

import copy
import json
import resource
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair

from chain.errors import ChainError
from chain.wallet import keystore
from chain.wallet.keystore import Parameters, parse, seal

KEY = Keypair.from_seed(bytes(range(32)))
OTHER = Keypair.from_seed(bytes(range(1, 33)))
SECRET = b"correct horse battery"
FAST = Parameters(n=1 << 14)
SEALED = seal(KEY, SECRET, FAST)
DOCUMENT: dict[str, Any] = json.loads(SEALED.dump())


def changed(*path: str, to: Any) -> bytes:
    """The document with one value replaced."""
    document = copy.deepcopy(DOCUMENT)
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = to
    return json.dumps(document).encode()


def test_a_key_comes_back_with_its_passphrase_and_no_other() -> None:
    again = parse(SEALED.dump())
    assert again == SEALED
    assert again.unlock(SECRET) == KEY
    for wrong in (b"", b"correct horse batterx", SECRET + b" "):
        with pytest.raises(ChainError, match=f"does not open the wallet {KEY.pubkey()}"):
            again.unlock(wrong)


def test_the_usual_parameters_take_128_mebibytes() -> None:
    usual = Parameters()
    assert (usual.n, usual.r, usual.p) == (131_072, 8, 1)
    assert usual.sane()
    made = seal(KEY, SECRET)
    assert made.parameters == usual
    assert made.unlock(SECRET) == KEY


def test_the_document_says_nothing_of_the_key() -> None:
    text = SEALED.dump()
    assert DOCUMENT["address"] == str(KEY.pubkey())
    assert KEY.secret() not in text
    assert KEY.secret().hex().encode() not in text
    assert SECRET not in text
    again = seal(KEY, SECRET, FAST)
    assert (again.salt, again.nonce, again.ciphertext) != (SEALED.salt, SEALED.nonce, SEALED.ciphertext)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("address",), str(OTHER.pubkey())),
        (("kdf", "n"), 1 << 15),
        (("kdf", "r"), 9),
        (("kdf", "p"), 2),
        (("kdf", "salt"), "00" * 32),
        (("cipher", "nonce"), "00" * 12),
        (("cipher", "ciphertext"), "00" * 48),
        (("cipher", "ciphertext"), f"{int(DOCUMENT['cipher']['ciphertext'], 16) ^ 1:096x}"),
    ],
    ids=["address", "n", "r", "p", "salt", "nonce", "ciphertext", "one bit"],
)
def test_whatever_is_altered_it_does_not_open(path: tuple[str, ...], value: Any) -> None:
    altered = parse(changed(*path, to=value))
    assert altered is not None
    if altered != SEALED:
        with pytest.raises(ChainError, match="does not open"):
            altered.unlock(SECRET)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), "other"),
        (("version",), 2),
        (("version",), True),
        (("version",), 1.0),
        (("address",), "x"),
        (("address",), None),
        (("address",), 5),
        (("kdf",), []),
        (("kdf",), None),
        (("kdf", "name"), "pbkdf2"),
        (("kdf", "n"), 1 << 13),  # too little work
        (("kdf", "n"), (1 << 17) + 1),  # no power of two
        (("kdf", "n"), 1 << 30),  # 1 TiB
        (("kdf", "n"), 10**400),
        (("kdf", "n"), -(1 << 17)),
        (("kdf", "n"), 131072.0),
        (("kdf", "n"), "131072"),
        (("kdf", "n"), True),
        (("kdf", "r"), 0),
        (("kdf", "r"), 1),
        (("kdf", "r"), 1 << 20),
        (("kdf", "p"), 0),
        (("kdf", "p"), 1 << 20),
        (("kdf", "salt"), "00" * 31),
        (("kdf", "salt"), "0G" * 32),
        (("kdf", "salt"), "AA" * 32),
        (("kdf", "salt"), "００" * 32),
        (("kdf", "more"), 1),
        (("cipher", "name"), "aes-128-gcm"),
        (("cipher", "nonce"), ""),
        (("cipher", "ciphertext"), "00" * 47),
        (("cipher", "ciphertext"), "00" * 1000),
        (("more",), 1),
    ],
)
def test_what_this_version_would_not_write_is_not_read(path: tuple[str, ...], value: Any) -> None:
    assert parse(changed(*path, to=value)) is None


def test_several_bounds_at_once() -> None:
    assert Parameters(n=1 << 20, r=8, p=1).sane()  # 1 GiB
    assert not Parameters(n=1 << 20, r=8, p=2).sane()
    assert not Parameters(n=1 << 18, r=64, p=1).sane()


def test_a_hostile_document_costs_nothing() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for n in (1 << 24, 1 << 40, 1 << 63):
        assert parse(changed("kdf", "n", to=n)) is None
    assert parse(b'{"a":' * 100_000) is None
    assert parse(b"{" + b" " * 1_000_000 + SEALED.dump()[1:]) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024 * (1024 if before > 1 << 24 else 1)


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_random_bytes_are_no_keystore(raw: bytes) -> None:
    assert parse(raw) is None


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5), st.data()
)
def test_a_value_of_another_kind_is_refused_or_does_not_open(value: Any, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([(k,) for k in DOCUMENT] + [("kdf", k) for k in DOCUMENT["kdf"]]))
    found = parse(changed(*path, to=value))
    assert found is None or found.address == KEY.pubkey()


def test_a_secret_is_wiped_whatever_happens() -> None:
    secret = bytearray(b"secret")
    with pytest.raises(KeyError), keystore.wiped(secret):
        raise KeyError
    assert secret == bytes(6)


@pytest.mark.parametrize(
    ("raw", "meant"), [(b" \n{", True), (SEALED.dump(), True), (b"[1]", False), (b"", False), (b"x{", False)]
)
def test_which_kind_a_file_is_meant_to_be(raw: bytes, meant: bool) -> None:
    assert keystore.looks_encrypted(raw) is meant
