"""The local node's methods about accounts and tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from solders.pubkey import Pubkey

from chain.localnet.context import NodeContext
from chain.localnet.parameters import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_MEMCMP,
    Params,
    Refusal,
    bytes_of,
    choice,
    flag,
    key_of,
    number,
    octets,
)
from chain.localnet.parsed import token_amount
from chain.network.base import MAX_TRANSACTION
from chain.network.execution import TOKEN_PROGRAMS, mint_of, token_account

_MAX_ACCOUNTS, _MAX_FILTERS, _LARGEST = 100, 4, 20
_MAX_ACCOUNT_SIZE = 10 << 20  # bytes
_NO_MINT = "Invalid param: Token mint could not be unpacked"


class AccountMethods:
    """Each method is a function from parameters to a result."""

    def __init__(self, context: NodeContext) -> None:
        self._context, self._network = context, context.network
        self.table: dict[str, Callable[[Params], object]] = {
            "getBalance": self._balance,
            "getAccountInfo": self._account_info,
            "getMultipleAccounts": self._multiple_accounts,
            "getProgramAccounts": self._program_accounts,
            "getMinimumBalanceForRentExemption": self._rent,
            "getTokenAccountBalance": self._token_balance,
            "getTokenSupply": self._token_supply,
            "getTokenLargestAccounts": self._token_largest,
            "getTokenAccountsByOwner": lambda p: self._token_accounts(p, 32),
            "getTokenAccountsByDelegate": lambda p: self._token_accounts(p, 76),
            "getLargestAccounts": self._largest,
            "getSupply": self._supply,
        }

    def _balance(self, params: Params) -> object:
        key, slot = params.key(0), self._context.slot(params.config(1))
        return self._context.at(slot, self._network.balance(key))

    def _rent(self, params: Params) -> object:
        size = params.number(0)
        if size > _MAX_ACCOUNT_SIZE:
            raise Refusal(INVALID_REQUEST, "Invalid request")
        return self._network.rent(size)

    def _account_info(self, params: Params) -> object:
        key, config = params.key(0), params.config(1)
        slot = self._context.slot(config)
        return self._context.at(slot, self._context.account(self._network.account(key), config, key))

    def _multiple_accounts(self, params: Params) -> object:
        keys, config = [key_of(key) for key in params.items(0, _MAX_ACCOUNTS)], params.config(1)
        slot = self._context.slot(config)
        found = zip(keys, self._network.accounts(keys), strict=True)
        return self._context.at(slot, [self._context.account(account, config, key) for key, account in found])

    def _program_accounts(self, params: Params) -> object:
        program, config = params.key(0), params.config(1)
        slot, (size, memcmp) = self._context.slot(config), filters_of(config)
        shown = self._context.keyed(self._network.program_accounts(program, size=size, memcmp=memcmp), config)
        return self._context.at(slot, shown) if flag(config, "withContext") else shown

    def _token_balance(self, params: Params) -> object:
        slot, account = self._context.slot(params.config(1)), self._network.account(params.key(0))
        if account is None:
            raise Refusal(INVALID_PARAMS, "Invalid param: could not find account")
        token = token_account(account)
        if token is None:
            raise Refusal(INVALID_PARAMS, "Invalid param: not a Token account")
        return self._context.at(slot, token_amount(token.amount, self._context.decimals(token.mint)))

    def _token_supply(self, params: Params) -> object:
        slot, account = self._context.slot(params.config(1)), self._network.account(params.key(0))
        if account is None:
            raise Refusal(INVALID_PARAMS, "Invalid param: could not find account")
        if account.owner not in TOKEN_PROGRAMS:
            raise Refusal(INVALID_PARAMS, "Invalid param: not a Token mint")
        mint = mint_of(account)
        if mint is None:
            raise Refusal(INVALID_PARAMS, "Invalid param: mint could not be unpacked")
        return self._context.at(slot, token_amount(mint.supply, mint.decimals))

    def _token_largest(self, params: Params) -> object:
        key, slot = params.key(0), self._context.slot(params.config(1))
        program, decimals = self._mint(key)
        found = self._network.program_accounts(program, memcmp=[(0, bytes(key))])
        held = [(token.amount, str(owner)) for owner, account in found if (token := token_account(account))]
        largest = sorted(held, key=lambda pair: (-pair[0], pair[1]))[:_LARGEST]
        return self._context.at(
            slot, [{"address": address, **token_amount(amount, decimals)} for amount, address in largest]
        )

    def _token_accounts(self, params: Params, offset: int) -> object:
        """Token accounts that name an address at `offset`."""
        address, config = params.key(0), params.config(2)
        memcmp = [(offset, bytes(address))]
        match params.get(1):
            case {"mint": wanted, **rest} if not rest:
                mint = key_of(wanted)
                memcmp.append((0, bytes(mint)))
                slot, (program, _) = self._context.slot(config), self._mint(mint)
            case {"programId": wanted, **rest} if not rest:
                program, slot = key_of(wanted), self._context.slot(config)
                if program not in TOKEN_PROGRAMS:
                    raise Refusal(INVALID_PARAMS, "Invalid param: unrecognized Token program id")
            case _:
                raise Refusal(INVALID_PARAMS, "Invalid params: an object with mint or programId was expected")
        found = self._network.program_accounts(program, memcmp=memcmp)
        # Where nobody is the delegate, bytes of an earlier one may be left.
        tokens = [
            (key, account)
            for key, account in found
            if (token := token_account(account)) and address in (token.owner, token.delegate)
        ]
        return self._context.at(slot, self._context.keyed(tokens, config))

    def _mint(self, key: Pubkey) -> tuple[Pubkey, int]:
        """The token program of a mint, and its decimals."""
        account = self._network.account(key)
        mint = mint_of(account)
        if account is None:
            raise Refusal(INVALID_PARAMS, "Invalid param: could not find mint")
        if mint is None:
            raise Refusal(INVALID_PARAMS, _NO_MINT)
        return account.owner, mint.decimals

    def _largest(self, params: Params) -> object:
        config = params.config(0)
        only = choice(config, "filter", "circulating", ("circulating", "nonCirculating"))
        with self._network.reading() as ledger:
            found = ledger.richest(_LARGEST) if only == "circulating" else []
        value = [{"address": str(key), "lamports": lamports} for key, lamports in found]
        return self._context.at(self._context.slot(config), value)

    def _supply(self, params: Params) -> object:
        config = params.config(0)
        with self._network.reading() as ledger:
            total = ledger.supply()
        value = {"total": total, "circulating": total, "nonCirculating": 0, "nonCirculatingAccounts": []}
        return self._context.at(self._context.slot(config), value)


def filters_of(config: Mapping[str, object]) -> tuple[int | None, list[tuple[int, bytes]]]:
    """The size (None: any) and the (offset, bytes) that a request's `filters` ask of accounts."""
    filters = config.get("filters") or []
    if not isinstance(filters, list) or len(filters) > _MAX_FILTERS:
        raise Refusal(INVALID_PARAMS, f"Too many filters provided; max {_MAX_FILTERS}")
    size: int | None = None
    memcmp = []
    for item in filters:
        match item:
            case {"dataSize": wanted}:
                # No account has two sizes.
                size = number({"dataSize": wanted}, "dataSize") if size in (None, wanted) else -1
            case {"memcmp": {"offset": _, "bytes": wanted} as compare}:
                encoding = choice(compare, "encoding", "base58", ("base58", "base64", "bytes"))
                raw = octets(wanted) if encoding == "bytes" else bytes_of(wanted, encoding, MAX_TRANSACTION)
                if len(raw) > MAX_MEMCMP:
                    raise Refusal(INVALID_PARAMS, "Invalid param: DataTooLarge")
                memcmp.append((number(compare, "offset"), raw))
            case "tokenAccountState" | {"tokenAccountState": _}:
                memcmp.append((108, b"\1"))
            case _:
                raise Refusal(INVALID_PARAMS, "Invalid params: a filter is dataSize, memcmp or tokenAccountState")
    return size, memcmp
