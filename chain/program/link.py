"""Link one relocatable BPF object (clang -target bpfel) into a Solana program.

No linker that PyPI offers knows Solana's virtual machine, so this is the last step: collect the object's
sections, give them their run-time addresses, resolve every relocation and write the ELF the loader reads.

- SBPF v0: a shared object whose file offsets are its addresses, loaded at 1 << 32. System calls stay
  symbols, for the loader to resolve through R_BPF_64_32 relocations; nothing else is left to relocate.
- SBPF v3: two segments, read-only data at 0 and code at 1 << 32, no sections and no relocations; a system
  call is the murmur3 hash of its name.

What the loader or the virtual machine would refuse is refused here, naming the function it is in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple

Version = Literal[0, 3]

ENTRY = "entrypoint"
_ET_REL, _ET_DYN, _EM_BPF = 1, 3, 247
_PROGBITS, _SYMTAB, _STRTAB, _DYNAMIC, _NOBITS, _REL, _DYNSYM = 1, 2, 3, 6, 8, 9, 11
_WRITE, _ALLOC, _EXEC = 1, 2, 4
_STT_SECTION, _STT_FUNC = 3, 2
_R_LDDW, _R_ABS64, _R_CALL = 1, 2, 10  # R_BPF_64_64, R_BPF_64_ABS64, R_BPF_64_32
_LDDW, _CALLX = 0x18, 0x8D  # opcodes
_EHDR, _PHDR, _SHDR = 64, 56, 64  # bytes of the ELF's headers
_MAX_SECTION = 1 << 24  # bytes; a damaged head may say anything
_CODE_BASE = 1 << 32  # v0: of the whole file; v3: of the code, its read-only data is at 0

_SYSCALLS = """abort sol_panic_ sol_log_ sol_log_64_ sol_log_pubkey sol_log_compute_units_ sol_log_data
sol_create_program_address sol_try_find_program_address sol_sha256 sol_keccak256 sol_blake3 sol_poseidon
sol_secp256k1_recover sol_curve_validate_point sol_curve_group_op sol_curve_multiscalar_mul
sol_alt_bn128_group_op sol_alt_bn128_compression sol_big_mod_exp sol_get_clock_sysvar sol_get_rent_sysvar
sol_get_epoch_schedule_sysvar sol_get_epoch_rewards_sysvar sol_get_last_restart_slot sol_get_sysvar
sol_get_epoch_stake sol_memcpy_ sol_memmove_ sol_memcmp_ sol_memset_ sol_invoke_signed_c
sol_invoke_signed_rust sol_set_return_data sol_get_return_data sol_get_processed_sibling_instruction
sol_get_stack_height sol_remaining_compute_units"""
SYSCALLS = frozenset(_SYSCALLS.split())  # a name not here would fail only when the program is deployed


class LinkError(Exception):
    """The object cannot become a Solana program; the message names the symbol or function at fault."""


class _Section(NamedTuple):
    name: str
    kind: int
    flags: int
    data: bytes
    align: int


class _Symbol(NamedTuple):
    name: str
    kind: int
    section: int  # 0: undefined
    value: int


class _Relocation(NamedTuple):
    offset: int
    kind: int
    symbol: int


@dataclass(frozen=True, slots=True)
class _Object:
    """What a relocatable file says."""

    sections: list[_Section]
    symbols: list[_Symbol]
    relocations: dict[int, list[_Relocation]]  # by the section they apply to


def link(object: bytes, version: Version) -> bytes:
    """The loadable ELF of a relocatable BPF object for SBPF `version`; LinkError if there can be none."""
    try:
        program = _Program(_read(object))
    except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
        raise LinkError(f"the object file is damaged: {error}") from None
    return _write_v3(program) if version == 3 else _write_v0(program)


def murmur3(data: bytes) -> int:
    """murmur3_32 with seed 0: in SBPF v3 the number of the system call whose name is `data`."""

    def rotate(x: int, by: int) -> int:
        return (x << by | x >> (32 - by)) & 0xFFFFFFFF

    def mix(word: int) -> int:
        return rotate(word * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF

    hashed, whole = 0, len(data) & ~3
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        hashed = (rotate(hashed ^ mix(word), 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
    if data[whole:]:
        hashed ^= mix(int.from_bytes(data[whole:], "little"))
    hashed ^= len(data)
    hashed = (hashed ^ hashed >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    hashed = (hashed ^ hashed >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return hashed ^ hashed >> 16


# --- reading ---


def _text(blob: bytes, at: int) -> str:
    return blob[at : blob.index(b"\0", at)].decode()


def _read(blob: bytes) -> _Object:
    if blob[:6] != b"\x7fELF\x02\x01":
        raise LinkError("this is not a 64-bit little-endian ELF file")
    kind, machine = struct.unpack_from("<HH", blob, 16)
    if (kind, machine) != (_ET_REL, _EM_BPF):
        raise LinkError(f"expected a relocatable BPF object, found ELF type {kind} for machine {machine}")
    (table,) = struct.unpack_from("<Q", blob, 40)
    count, names = struct.unpack_from("<HH", blob, 60)
    if table + _SHDR * count > len(blob):
        raise LinkError("the table of sections does not lie within the object")
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    heads = [struct.unpack_from("<IIQQQQIIQQ", blob, table + _SHDR * i) for i in range(count)]
    if any(head[5] > _MAX_SECTION for head in heads):
        raise LinkError(f"a section is larger than {_MAX_SECTION} bytes")
    bodies = [bytes(head[5]) if head[1] == _NOBITS else blob[head[4] : head[4] + head[5]] for head in heads]
    sections, symbols, relocations = [], [], {}
    for head, body in zip(heads, bodies, strict=True):
        sections.append(_Section(_text(bodies[names], head[0]), head[1], head[2], body, head[8]))
        if head[1] == _SYMTAB:
            for name, info, _, section, value, _ in struct.iter_unpack("<IBBHQQ", body):
                symbols.append(_Symbol(_text(bodies[head[6]], name), info & 15, section, value))
        elif head[1] == _REL:
            found = struct.iter_unpack("<QQ", body)
            relocations[head[7]] = [_Relocation(at, info & 0xFFFFFFFF, info >> 32) for at, info in found]
    return _Object(sections, symbols, relocations)


# --- linking ---


def _pad(buffer: bytearray, align: int) -> None:
    buffer.extend(bytes(-len(buffer) % align))


class _Program:
    """An object's code and read-only data, collected; `resolve` then gives them their addresses."""

    def __init__(self, source: _Object) -> None:
        self.source = source
        self.code, self.data = bytearray(), bytearray()
        self.entry = 0  # offset into the code
        self.syscalls: list[tuple[int, str]] = []  # (offset of the call in the code, name)
        self._placed: dict[int, tuple[bytearray, int]] = {}  # section -> its part, its offset there
        for index, section in enumerate(source.sections):
            if section.flags & _ALLOC and section.data and not section.name.startswith(".eh_frame"):
                self._place(index, section)
        _pad(self.data, 8)
        entry = next((s for s in source.symbols if s.name == ENTRY and s.section), None)
        if entry is None:
            raise LinkError(f"there is no function {ENTRY!r}")
        self.entry = self._where(entry)[1]

    def _place(self, index: int, section: _Section) -> None:
        if section.flags & _EXEC:
            part, align = self.code, 8
        elif section.flags & _WRITE and not section.name.startswith(".data.rel.ro"):
            names = [s.name for s in self.source.symbols if s.section == index and s.kind != _STT_SECTION]
            raise LinkError(f"a program has no mutable globals, {section.name} holds {', '.join(names)}")
        else:
            part, align = self.data, max(section.align, 8)
        _pad(part, align)
        self._placed[index] = part, len(part)
        part += section.data

    def resolve(self, version: Version, code_at: int, data_at: int) -> None:
        """Apply every relocation for code and data at these run-time addresses."""
        for index, relocations in self.source.relocations.items():
            if index not in self._placed:
                continue
            part, start = self._placed[index]
            for relocation in relocations:
                at, symbol = start + relocation.offset, self.source.symbols[relocation.symbol]
                if relocation.kind == _R_CALL:
                    self._call(version, at, symbol)
                    continue
                if not symbol.section:
                    raise LinkError(f"undefined symbol {symbol.name!r} used as data in {self.function(at)}")
                target, offset = self._where(symbol)
                address = offset + (code_at if target is self.code else data_at)
                if relocation.kind == _R_LDDW and part is self.code:
                    low, high = struct.unpack_from("<I", part, at + 4)[0], struct.unpack_from("<I", part, at + 12)[0]
                    address += high << 32 | low
                    struct.pack_into("<I", part, at + 4, address & 0xFFFFFFFF)
                    struct.pack_into("<I", part, at + 12, address >> 32)
                elif relocation.kind == _R_ABS64:
                    struct.pack_into("<Q", part, at, address + struct.unpack_from("<Q", part, at)[0])
                else:
                    name = self.source.sections[index].name
                    raise LinkError(f"relocation type {relocation.kind} at {name}+{relocation.offset:#x} is unknown")
        self._check(version)

    def _where(self, symbol: _Symbol) -> tuple[bytearray, int]:
        if symbol.section not in self._placed:
            raise LinkError(f"symbol {symbol.name!r} is not in a section that a program keeps")
        part, start = self._placed[symbol.section]
        return part, start + symbol.value

    def function(self, at: int) -> str:
        """Name of the function around an offset into the code."""
        starts = [
            (self._where(symbol)[1], symbol.name)
            for symbol in self.source.symbols
            if symbol.kind == _STT_FUNC and symbol.section in self._placed
        ]
        return max((start for start in starts if start[0] <= at), default=(0, "?"))[1]

    def _call(self, version: Version, at: int, symbol: _Symbol) -> None:
        if symbol.section:  # inside the program: relative to the next instruction, source register 1
            (addend,) = struct.unpack_from("<i", self.code, at + 4)
            target = self._where(symbol)[1] + (addend + 1) * 8
            self.code[at + 1] = self.code[at + 1] & 0x0F | 0x10
            struct.pack_into("<i", self.code, at + 4, (target - at) // 8 - 1)
            return
        if symbol.name not in SYSCALLS:
            raise LinkError(f"unknown function {symbol.name!r} called in {self.function(at)}")
        self.syscalls.append((at, symbol.name))
        self.code[at + 1] &= 0x0F
        struct.pack_into("<I", self.code, at + 4, murmur3(symbol.name.encode()) if version == 3 else 0xFFFFFFFF)

    def _check(self, version: Version) -> None:
        at = 0
        while at < len(self.code):
            opcode, registers, jump, _ = struct.unpack_from("<BBhi", self.code, at)
            if opcode == _CALLX and version == 0:  # v0 reads the register from the immediate
                struct.pack_into("<BBhi", self.code, at, opcode, 0, 0, registers & 15)
            elif fault := _fault(opcode, jump, at // 8, len(self.code) // 8):
                raise LinkError(f"{fault} (opcode {opcode:#04x}) in {self.function(at)}: compile with -mcpu=v2")
            at += 16 if opcode == _LDDW else 8


def _fault(opcode: int, jump: int, at: int, size: int) -> str:
    """What is wrong with an instruction at index `at` of `size`; empty where nothing is."""
    kind, operation = opcode & 7, opcode & 0xF0
    if kind == 6:
        return "32-bit jump"
    if kind == 4 and opcode not in (0xD4, 0xDC):  # those two swap bytes
        return "32-bit arithmetic"
    if kind == 3 and opcode & 0xE0 == 0xC0:
        return "atomic operation"
    sign_extends = kind == 1 and opcode & 0xE0 == 0x80
    signed = kind == 7 and operation in (0x30, 0x90, 0xB0) and jump  # division, remainder, move
    if sign_extends or signed or opcode == 0xD7:
        return "BPF v4 instruction"
    if kind == 5 and operation not in (0x80, 0x90) and not 0 <= at + 1 + jump < size:
        return "jump out of the program"
    return ""


# --- writing ---


class _Strings:
    """An ELF string table."""

    def __init__(self) -> None:
        self.blob = bytearray(1)

    def add(self, text: str) -> int:
        at = len(self.blob)
        self.blob += text.encode() + b"\0"
        return at


class _Sections:
    """An ELF file as it grows, section by section, and its section headers."""

    def __init__(self, start: int) -> None:
        self.out = bytearray(start)
        self.heads = [bytes(_SHDR)]
        self._names = _Strings()

    def put(
        self,
        name: str,
        kind: int,
        flags: int,
        data: bytes | bytearray,
        align: int = 8,
        link: int = 0,
        info: int = 0,
        entry: int = 0,
    ) -> int:
        """Append a section; its offset, which is its address too."""
        _pad(self.out, align)
        at = len(self.out)
        address = at if flags & _ALLOC else 0
        head = (self._names.add(name), kind, flags, address, at, len(data), link, info, align, entry)
        self.heads.append(struct.pack("<IIQQQQIIQQ", *head))
        self.out += data
        return at

    def put_names(self) -> None:
        """Append the table of the sections' names, which ends with its own."""
        table = bytes(self._names.blob) + b".shstrtab\0"
        self.put(".shstrtab", _STRTAB, 0, table, align=1)


def _header(entry: int, segments: int, table: int, sections: int, flags: int) -> bytes:
    sizes = _EHDR, _PHDR, segments, _SHDR, sections, max(sections - 1, 0)
    fields = struct.pack("<HHIQQQIHHHHHH", _ET_DYN, _EM_BPF, 1, entry, _EHDR, table, flags, *sizes)
    return b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + fields


def _segment(kind: int, flags: int, offset: int, address: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size, 8)


def _write_v0(program: _Program) -> bytes:
    code_at = _EHDR + 3 * _PHDR
    data_at = (code_at + len(program.code) + 15) & ~15
    program.resolve(0, _CODE_BASE + code_at, _CODE_BASE + data_at)

    strings, symbols, numbers, relocations = _Strings(), bytearray(24), dict[str, int](), bytearray()
    symbols += struct.pack("<IBBHQQ", strings.add(ENTRY), 0x12, 0, 1, code_at + program.entry, 0)
    for at, name in program.syscalls:
        if name not in numbers:
            numbers[name] = len(symbols) // 24
            symbols += struct.pack("<IBBHQQ", strings.add(name), 0x10, 0, 0, 0, 0)
        relocations += struct.pack("<QQ", code_at + at, numbers[name] << 32 | _R_CALL)

    file = _Sections(code_at)
    file.put(".text", _PROGBITS, _ALLOC | _EXEC, program.code)
    if program.data:  # the loader refuses empty sections
        file.put(".rodata", _PROGBITS, _ALLOC, program.data, align=16)
    first = len(file.heads)  # the number .dynsym gets
    symbols_at = file.put(".dynsym", _DYNSYM, _ALLOC, symbols, link=first + 1, info=1, entry=24)
    strings_at = file.put(".dynstr", _STRTAB, _ALLOC, strings.blob, align=1)
    table = [(6, symbols_at), (11, 24), (5, strings_at), (10, len(strings.blob))]  # DT_SYMTAB, SYMENT, STRTAB, STRSZ
    if relocations:
        relocations_at = file.put(".rel.dyn", _REL, _ALLOC, relocations, link=first, entry=16)
        table += [(17, relocations_at), (18, len(relocations)), (19, 16)]  # DT_REL, RELSZ, RELENT
    dynamic = b"".join(struct.pack("<QQ", *pair) for pair in [*table, (0, 0)])
    dynamic_at = file.put(".dynamic", _DYNAMIC, _ALLOC, dynamic, link=first + 1, entry=16)
    file.put_names()
    _pad(file.out, 8)
    file.out[:code_at] = (
        _header(code_at + program.entry, 3, len(file.out), len(file.heads), 0)
        + _segment(1, 5, code_at, code_at, len(program.code))
        + _segment(1, 4, data_at, data_at, len(program.data))
        + _segment(2, 4, dynamic_at, dynamic_at, len(dynamic))
    )
    return bytes(file.out) + b"".join(file.heads)


def _write_v3(program: _Program) -> bytes:
    # Address 0 is where read-only data begins: eight idle bytes keep any object from having the address NULL.
    program.resolve(3, _CODE_BASE, 8)
    data = bytes(8) + program.data
    data_at = _EHDR + 2 * _PHDR
    code_at = data_at + len(data)
    return (
        _header(_CODE_BASE + program.entry, 2, 0, 0, 3)
        + _segment(1, 4, data_at, 0, len(data))
        + _segment(1, 1, code_at, _CODE_BASE, len(program.code))
        + data
        + bytes(program.code)
    )
