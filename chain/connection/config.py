"""Configuration: what a command works with, and where each value comes from.

Precedence, per value: flag > environment > project file (`armlx.toml` in the working directory) > user file
(`config.toml` in the user's configuration folder, or the file that ARMLX_CONFIG names) > the Solana command
line's own file > default (the network's file in `configs/`, then this module).

Both files have the same form: values for every network on top, and for one network in `[networks.NAME]`,
which take precedence over those on top. A name that `configs/` does not know is your own network; it needs
`rpc_url`.

    network = "devnet"
    [networks.devnet]
    rpc_url = "https://devnet.example"
    max_spend = "0.2"

Rules: an unknown name or a value of another form is refused, naming the file. What tells real money and local
networks cannot be configured for the networks of `configs/`. The Solana command line's RPC node is taken only
for the network whose name its URL carries, its keypair only where the home has no wallet; neither makes a
command leave the embedded network.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from chain.errors import ChainError, InvalidData
from common.files import read_regular
from common.resources import CONFIGS
from common.text import hosts_only, without_key

PROJECT_FILE = "armlx.toml"
SOLANA = "the Solana CLI's config.yml"
COMMITMENTS = ("processed", "confirmed", "finalized")
LAMPORTS = 1_000_000_000  # per SOL
MAX_PRIORITY_FEE = 1_000_000_000  # micro-lamports per compute unit: 1.4 SOL for the largest transaction
_MAX_FILE = 64 * 1024  # bytes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Misconfigured(InvalidData):
    """An invalid configuration file, variable or flag."""


class SettingValue(NamedTuple):
    """A value and where it comes from, in words."""

    value: Any
    origin: str


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 1_000:
        raise ValueError("expected text")
    return value


def _url(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"https?://[^/\s]\S*", text):
        raise ValueError("expected an http(s) URL")
    return text.rstrip("/") if "?" not in text else text


def _urls(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= 8:
        raise ValueError("expected a list of one to eight URLs")
    return tuple(_url(entry) for entry in value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _explorer(value: object) -> str:
    if _text(value).count("{address}") != 1 or not str(value).startswith("https://"):
        raise ValueError("expected a URL with {address} in it, such as https://explorer.solana.com/address/{address}")
    return str(value)


def _switch(value: object) -> bool:
    return value in ("1", "true") if value in ("0", "1", "false", "true") else _flag(value)


def _commitment(value: object) -> str:
    if value not in COMMITMENTS:
        raise ValueError(f"expected one of {', '.join(COMMITMENTS)}")
    return str(value)


def _priority_fee(value: object) -> int | str:
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 12 else value
    if number == "auto":
        return "auto"
    if type(number) is not int or not 0 <= number <= MAX_PRIORITY_FEE:
        raise ValueError(f"expected auto or a number of micro-lamports from 0 to {MAX_PRIORITY_FEE}")
    return number


def _lamports(value: object) -> int:
    try:
        if type(value) in (str, int, Decimal) and len(str(value)) <= 40:
            exact = Decimal(str(value)) * LAMPORTS
            if 0 <= exact < 2**63 and exact == int(exact):  # in this order: an exponent can be huge
                return int(exact)
    except (ArithmeticError, ValueError):
        pass
    raise ValueError("expected an amount in SOL, for example 0.05")


def _key(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"[1-9A-HJ-NP-Za-km-z]{32,44}", text):
        raise ValueError("expected an address in base58")
    return text


class _Setting(NamedTuple):
    parse: Callable[[object], Any]
    flag: str = ""
    env: str = ""
    default: Any = None
    for_one: bool = True  # allowed in [networks.NAME]
    for_all: bool = False  # allowed at the top of a file
    own: bool = False  # only in the user file: a folder that somebody else made must not run a program or call out


_SETTINGS: Mapping[str, _Setting] = {
    "network": _Setting(_text, "--network", "ARMLX_NETWORK", "embedded", for_one=False, for_all=True),
    "home": _Setting(_text, "--home", "ARMLX_HOME", None, for_one=False, for_all=True),
    "rpc_url": _Setting(_url, "--rpc-url", "ARMLX_RPC_URL", ""),
    "irys": _Setting(_url, "--irys", "ARMLX_IRYS", None),
    "irys_uploader": _Setting(_url, default=""),
    "irys_gateways": _Setting(_urls, default=()),
    "program_id": _Setting(_key),
    "genesis": _Setting(_key, default=""),
    "keypair": _Setting(_text, "--keypair", "ARMLX_KEYPAIR", None, for_all=True),
    "commitment": _Setting(_commitment, "--commitment", "ARMLX_COMMITMENT", "confirmed", for_all=True),
    "priority_fee": _Setting(_priority_fee, "--priority-fee", "ARMLX_PRIORITY_FEE", 0, for_all=True),
    "max_spend": _Setting(_lamports, "--max-spend", "ARMLX_MAX_SPEND", None, for_all=True),
    "explorer": _Setting(_explorer, default=""),
    "notify_command": _Setting(_text, env="ARMLX_NOTIFY_COMMAND", for_one=False, for_all=True, own=True),
    "notify_webhook": _Setting(_url, env="ARMLX_NOTIFY_WEBHOOK", for_one=False, for_all=True, own=True),
    "notify_desktop": _Setting(
        _switch, env="ARMLX_NOTIFY_DESKTOP", default=False, for_one=False, for_all=True, own=True
    ),
    "is_local": _Setting(_flag, default=None, for_one=False),
    "real_money": _Setting(_flag, default=False, for_one=False),
}


class Layer(NamedTuple):
    """One file: values for all networks and for one each, as parsed, and the file's name in words."""

    origin: str
    top: Mapping[str, Any]
    networks: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Settings:
    """Every value in force with its origin; see `_SETTINGS` for the names. `keypair` is None if only the
    home's wallets are left; `max_spend` is in lamports, None for no cap; `is_local` None for "as the URL says".
    """

    found: Mapping[str, SettingValue]

    def __getitem__(self, name: str) -> Any:
        return self.found[name].value

    @property
    def network(self) -> str:
        """The network's name, or its URL where it has none."""
        return str(self["network"])

    @property
    def typed(self) -> bool:
        """Whether the network stood on the command line."""
        return self.found["network"].origin == _SETTINGS["network"].flag

    def as_json(self) -> dict[str, Any]:
        """Values and origins, by name."""
        return {name: {"value": shown(name, found.value), "origin": found.origin} for name, found in self.found.items()}

    def text(self) -> str:
        """A line per value."""
        rows = [(name, shown(name, found.value), found.origin) for name, found in self.found.items()]
        return "\n".join(f"{name:<14} {_words(value):<46} {origin}" for name, value, origin in rows)


def shown(name: str, value: Any) -> Any:
    """A value for people and scripts: SOL as a decimal text, and of a URL what is no key to a paid service."""
    if name == "max_spend" and value is not None:
        return str(Decimal(value) / LAMPORTS)
    if name == "notify_webhook" and value:  # whoever knows the whole of it may post there
        return hosts_only(value)
    if name == "notify_command" and value:
        return f"{value.split()[0]} ..." if " " in value else value
    if isinstance(value, tuple):
        return [shown(name, entry) for entry in value]
    if name in ("rpc_url", "network", "irys", "irys_uploader", "irys_gateways") and "://" in str(value):
        return without_key(value)
    return value


def _words(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return ", ".join(value) if isinstance(value, list) else str(value)


def resolve(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    layers: tuple[Layer, ...],
    shipped: Mapping[str, Mapping[str, Any]],
    solana: Callable[[], Mapping[str, str]],
    asked: str | None = None,
) -> Settings:
    """The values in force. Raises Misconfigured, or ChainError if there is no such network.

    `asked` is a network that the program itself names, `flags` are those given (None: not given), `layers` the
    files, the first goes first, `shipped` the networks of `configs/` by name, `solana` the Solana command line's
    own settings, asked for only where they may count.
    """
    outer = [_given(flags), _environment(environment)]
    if asked is not None:
        outer.insert(0, {"network": SettingValue(asked, "the program")})
    tops = [{name: SettingValue(value, layer.origin) for name, value in layer.top.items()} for layer in layers]
    network = _first("network", [*outer, *tops])
    if network.value == "local":
        network = network._replace(value="embedded")
    name = network.value
    own = {known for layer in layers for known in layer.networks}
    url = name if re.match(r"https?://", name) else ""
    if not url and name not in shipped and name not in own:
        raise ChainError(
            f"There is no network named {name!r}.",
            f"Use one of {', '.join([*shipped, *sorted(own - shipped.keys())])}, or an http(s) URL.",
        )
    inner: list[Mapping[str, SettingValue]] = []
    for layer, top in zip(layers, tops, strict=True):
        origin = f"{layer.origin}, networks.{name}"
        inner += [{key: SettingValue(value, origin) for key, value in layer.networks.get(name, {}).items()}, top]
    default = shipped.get(name, {"rpc_url": url} if url else {})
    inner.append(_from_solana(name, default, solana))
    inner.append({key: SettingValue(value, f"default of {name}") for key, value in default.items()})
    found = {key: _first(key, [*outer, *inner]) for key in _SETTINGS} | {"network": network}
    if name != "embedded" and not found["rpc_url"].value:
        raise Misconfigured(f"The network {name!r} has no rpc_url.", "Set it in its file, or use --rpc-url.")
    return Settings(found)


def _first(name: str, sources: list[Mapping[str, SettingValue]]) -> SettingValue:
    for source in sources:
        if name in source:
            return source[name]
    return SettingValue(_SETTINGS[name].default, "default")


def _given(flags: Mapping[str, object]) -> dict[str, SettingValue]:
    given = {name: value for name, value in flags.items() if value is not None}
    return {
        name: SettingValue(_parsed(name, value, _SETTINGS[name].flag), _SETTINGS[name].flag)
        for name, value in given.items()
    }


def _environment(environment: Mapping[str, str]) -> dict[str, SettingValue]:
    found = {}
    for name, setting in _SETTINGS.items():
        if setting.env and environment.get(setting.env):
            found[name] = SettingValue(_parsed(name, environment[setting.env], setting.env), setting.env)
    return found


def _from_solana(
    name: str, default: Mapping[str, Any], solana: Callable[[], Mapping[str, str]]
) -> dict[str, SettingValue]:
    """What the Solana command line's file gives for a network: nothing for local ones."""
    if name == "embedded" or default.get("is_local"):
        return {}
    theirs, origin, found = solana(), SOLANA, {}
    if theirs.get("keypair_path"):
        found["keypair"] = SettingValue(theirs["keypair_path"], origin)
    host = urlsplit(theirs.get("json_rpc_url", "")).hostname or ""
    if name in re.split(r"[.-]", host):
        for key, here in (("json_rpc_url", "rpc_url"), ("commitment", "commitment")):
            if theirs.get(key):
                found[here] = SettingValue(_parsed(here, theirs[key], origin), origin)
    return found


def _parsed(name: str, value: object, origin: str) -> Any:
    try:
        return _SETTINGS[name].parse(value)
    except ValueError as error:
        shown = "" if _SETTINGS[name].own else f"{value!r:.60}"  # it may be a secret
        if origin.startswith("--"):  # the flag is the setting's name
            raise Misconfigured(f"{origin} {shown} is invalid: {error}.", "Correct it.") from None
        given = shown and f" = {shown}"
        raise Misconfigured(f"{origin}: {name}{given} is invalid: {error}.", f"Correct {origin}.") from None


def parse_file(data: bytes, origin: str, *, own: bool = True) -> Layer:
    """A user file, or a project file, which is not the user's `own`. Raises Misconfigured."""
    document = _toml(data, origin)
    for name in document:
        if not own and name in _SETTINGS and _SETTINGS[name].own:
            raise Misconfigured(
                f"{origin}: {name} is not taken from a folder's file, which anybody may have written.",
                f"Set it in {user_file()}, or as {_SETTINGS[name].env}.",
            )
    networks = document.pop("networks", {})
    if not isinstance(networks, dict) or not all(isinstance(table, dict) for table in networks.values()):
        raise Misconfigured(f"{origin}: networks must be tables, for example [networks.devnet].", f"Correct {origin}.")
    for name in networks:
        if not _NAME.fullmatch(name) or name == "local":
            raise Misconfigured(f"{origin}: {name!r} is not a valid network name.", f"Correct {origin}.")
    top = _values(document, origin, {name for name, setting in _SETTINGS.items() if setting.for_all})
    allowed = {name for name, setting in _SETTINGS.items() if setting.for_one}
    return Layer(origin, top, {name: _values(table, origin, allowed) for name, table in networks.items()})


def parse_network(data: bytes, origin: str) -> tuple[str, dict[str, Any]]:
    """A network file of `configs/`: the network's name and its values. Raises Misconfigured."""
    document = _toml(data, origin)
    name = document.pop("name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Misconfigured(f"{origin} does not name its network.", "Restore it from the repository.")
    return name, _values(
        document,
        origin,
        _SETTINGS.keys()
        - {"network", "home", "irys", "keypair"}
        - {name for name, setting in _SETTINGS.items() if setting.own},
    )


def _toml(data: bytes, origin: str) -> dict[str, Any]:
    try:
        if len(data) > _MAX_FILE:
            raise ValueError(f"larger than {_MAX_FILE} bytes")
        return tomllib.loads(data.decode(), parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise Misconfigured(f"{origin} is not valid TOML: {error}.", f"Correct {origin}.") from None


def _values(table: Mapping[str, object], origin: str, allowed: set[str]) -> dict[str, Any]:
    unknown = sorted(table.keys() - allowed)
    if unknown:
        near = get_close_matches(unknown[0][:40], allowed, 1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise Misconfigured(
            f"{origin}: unknown setting {unknown[0][:40]!r}.", f"{hint}Known settings: {', '.join(sorted(allowed))}."
        )
    return {name: _parsed(name, value, origin) for name, value in table.items()}


def parse_solana(data: bytes) -> dict[str, str]:
    """The Solana command line's config.yml: its top-level `name: text` lines, as that program writes them.

    Lists and nested mappings (its address labels) are ignored. Raises Misconfigured for anything else.
    """
    cure = "Repair it with `solana config set`, or move it away."
    try:
        lines = data.decode().splitlines() if len(data) <= _MAX_FILE else None
    except UnicodeDecodeError:
        lines = None
    if lines is None:
        raise Misconfigured("The Solana CLI's config.yml is too large or not UTF-8.", cure)
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith((" ", "#", "---")):
            continue
        match = re.fullmatch(
            r"""([A-Za-z_]+):(?:\s+(?:"([^"\\]*)"|'([^']*)'|([^\s"'#&*!|>{\[][^#]*?)))?\s*(?:\s#.*)?""", line
        )
        if match is None or match[1] in found:
            raise Misconfigured(f"The Solana CLI's config.yml: line {number} is not `name: text`.", cure)
        found[match[1]] = next((part for part in match.groups()[1:] if part is not None), "")
    return found


# --- files ---


def load(flags: Mapping[str, object], *, asked: str | None = None) -> Settings:
    """The values in force for this process: `flags`, its environment, and the files there are."""
    return resolve(flags, os.environ, files(), shipped(), solana_file, asked)


def home() -> Path:
    """The home folder without an option or variable: the one that a file names, or the default."""
    return next((Path(layer.top["home"]) for layer in files() if "home" in layer.top), None) or default_home()


def default_home() -> Path:
    """The home folder where no option, variable or file names another."""
    import platformdirs

    return Path(platformdirs.user_data_dir("armlx", appauthor=False))


def files() -> tuple[Layer, ...]:
    """The project file and the user file, where they exist."""
    found = [(Path(PROJECT_FILE).absolute(), PROJECT_FILE, False), (user_file(), str(user_file()), True)]
    return tuple(parse_file(data, origin, own=own) for path, origin, own in found if (data := _read(path)) is not None)


def user_file() -> Path:
    """Where the user file is or would be."""
    import platformdirs

    named = os.environ.get("ARMLX_CONFIG")
    return Path(named) if named else Path(platformdirs.user_config_dir("armlx", appauthor=False)) / "config.toml"


def shipped() -> dict[str, dict[str, Any]]:
    """The networks of `configs/`, by name."""
    return dict(parse_network(path.read_bytes(), f"configs/{path.name}") for path in sorted(CONFIGS.glob("*.toml")))


def solana_file() -> dict[str, str]:
    """The Solana command line's own settings; nothing where it has none."""
    data = _read(Path.home() / ".config" / "solana" / "cli" / "config.yml")
    return {} if data is None else parse_solana(data)


def _read(path: Path) -> bytes | None:
    try:
        return read_regular(path, _MAX_FILE + 1)[0]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Misconfigured(
            f"Cannot read {path}: {error.strerror}.", "Check its permissions, or move it away."
        ) from None
