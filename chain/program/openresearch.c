/* The OpenResearch program as local networks run it: wire-compatible with the deployed Anchor program
 * (IDL spec 0.1.0), whose source is not public. Discriminators, layouts, account order, events, errors
 * and log lines are that program's; where its behaviour is unknown, the choice made here is marked CHOICE.
 *
 * How hostile callers are met: before an instruction runs, its account list is checked against a table
 * (signers, writable accounts, fixed addresses). The instruction then derives the address of each of its
 * own accounts anew, with the canonical bump, and checks owner, discriminator and size before it reads one;
 * token accounts are checked for the token program, mint and owner. Only after that does anything change,
 * and an error anywhere undoes all of it. All amounts are u64 and every sum and product is checked. */
#include "sbf.h"

/* ---- errors ---- */

enum {
  Unauthorized = 6000, AlreadyRegistered, NotRegistered, NotVerifier, ZeroAddress, UnknownProject, UnknownProposal,
  WrongStatus, WrongReviewer, LockActive, LockExpired, ExpiryNotReached, ScoreNotImproved, ZeroStake, ZeroAmount,
  InsufficientPayment, OverSupply, PoolCapExceeded, NothingToClaim, SolTransferFailed, MathOverflow, InvalidCurve,
  StringTooLong,
  /* Anchor's own */
  InstructionFallbackNotFound = 101, InstructionDidNotDeserialize = 102, ConstraintMut = 2000, ConstraintSeeds = 2006,
  ConstraintTokenMint = 2014, ConstraintTokenOwner = 2015, AccountDiscriminatorMismatch = 3002,
  AccountDidNotDeserialize = 3003, AccountNotEnoughKeys = 3005, AccountOwnedByWrongProgram = 3007,
  InvalidProgramId = 3008, AccountNotSigner = 3010, AccountNotInitialized = 3012,
  AccountNotAssociatedTokenAccount = 3014, AccountSysvarMismatch = 3015,
};

typedef struct { u64 code; const char *name, *message; } Fault;
#define FAULT(name, message) {name, #name, message}
static const Fault FAULTS[] = {
  FAULT(Unauthorized, "The signer is not the authority"),
  FAULT(AlreadyRegistered, "The verifier is already registered"),
  FAULT(NotRegistered, "The verifier is not registered"),
  FAULT(NotVerifier, "The signer is not a registered verifier"),
  FAULT(ZeroAddress, "The zero address is not allowed"),
  FAULT(UnknownProject, "There is no such project"),
  FAULT(UnknownProposal, "There is no such proposal"),
  FAULT(WrongStatus, "The proposal's status does not allow this"),
  FAULT(WrongReviewer, "Another verifier claimed this review"),
  FAULT(LockActive, "The review lock is still active"),
  FAULT(LockExpired, "The review lock has expired"),
  FAULT(ExpiryNotReached, "The proposal has not reached its expiry"),
  FAULT(ScoreNotImproved, "The score does not improve on the current best"),
  FAULT(ZeroStake, "The stake must be greater than zero"),
  FAULT(ZeroAmount, "The amount must be greater than zero"),
  FAULT(InsufficientPayment, "The payment does not cover the price"),
  FAULT(OverSupply, "The amount exceeds the token's supply"),
  FAULT(PoolCapExceeded, "The reward would exceed the miner pool's cap"),
  FAULT(NothingToClaim, "There is nothing to claim"),
  FAULT(SolTransferFailed, "The transfer of lamports failed"),
  FAULT(MathOverflow, "Arithmetic overflow"),
  FAULT(InvalidCurve, "The curve is invalid: base_price + slope must be above zero"),
  FAULT(StringTooLong, "The string is too long"),
  FAULT(InstructionFallbackNotFound, "Fallback functions are not supported"),
  FAULT(InstructionDidNotDeserialize, "The program could not deserialize the given instruction"),
  FAULT(ConstraintMut, "A mut constraint was violated"),
  FAULT(ConstraintSeeds, "A seeds constraint was violated"),
  FAULT(ConstraintTokenMint, "A token mint constraint was violated"),
  FAULT(ConstraintTokenOwner, "A token owner constraint was violated"),
  FAULT(AccountDiscriminatorMismatch, "8 byte discriminator did not match what was expected"),
  FAULT(AccountDidNotDeserialize, "Failed to deserialize the account"),
  FAULT(AccountNotEnoughKeys, "Not enough account keys given to the instruction"),
  FAULT(AccountOwnedByWrongProgram, "The given account is owned by a different program than expected"),
  FAULT(InvalidProgramId, "Program ID was not as expected"),
  FAULT(AccountNotSigner, "The given account did not sign"),
  FAULT(AccountNotInitialized, "The program expected this account to be already initialized"),
  FAULT(AccountNotAssociatedTokenAccount, "The given account is not the associated token account"),
  FAULT(AccountSysvarMismatch, "The given public key does not match the required sysvar"),
};

typedef struct { u8 text[320]; u64 len; } Line;

static noinline void add_text(Line *line, const char *text) {
  while (*text && line->len < sizeof line->text) line->text[line->len++] = *text++;
}

static noinline void add_number(Line *line, u64 number) {
  char digits[21];
  u64 at = sizeof digits;
  digits[--at] = 0;
  do digits[--at] = '0' + number % 10; while (number /= 10);
  add_text(line, digits + at);
}

/* Log an error the way Anchor does and give its code; `account` is the one at fault or NULL. */
static noinline u64 fail_about(u64 code, const char *account) {
  const Fault *fault = FAULTS;
  while (fault->code != code) fault++;
  Line line;
  line.len = 0;
  add_text(&line, "AnchorError ");
  if (account) {
    add_text(&line, "caused by account: ");
    add_text(&line, account);
  } else {
    add_text(&line, "occurred");
  }
  add_text(&line, ". Error Code: ");
  add_text(&line, fault->name);
  add_text(&line, ". Error Number: ");
  add_number(&line, code);
  add_text(&line, ". Error Message: ");
  add_text(&line, fault->message);
  add_text(&line, ".");
  sol_log_(line.text, line.len);
  return code;
}

static noinline u64 fail(u64 code) { return fail_about(code, NULL); }

/* ---- constants and fixed addresses ---- */

enum {
  REVIEW_LOCK_SECONDS = 86400,
  EXPIRY_WINDOW_SECONDS = 604800,
  SLASH_BASIS = 10000,
  SLASH_TO_POOL = 5000, /* of SLASH_BASIS, rounded down; the rest is burned */
  REWARD_TOKENS = 1,    /* CHOICE: a flat token an approval */
  MAX_NAME = 32,
  MAX_SYMBOL = 10,
  MINT_SPACE = 82,
  TOKEN_SPACE = 165,
};

static const Pubkey SYSTEM = {{0}};
static const Pubkey TOKEN = {{6, 221, 246, 225, 215, 101, 161, 147, 217, 203, 225, 70, 206, 235, 121, 172,
                              28, 180, 133, 237, 95, 91, 55, 145, 58, 140, 245, 133, 126, 255, 0, 169}};
static const Pubkey ASSOCIATED_TOKEN = {{140, 151, 37, 143, 78, 36, 137, 241, 187, 61, 16, 41, 20, 142, 13, 131,
                                         11, 90, 19, 153, 218, 255, 16, 132, 4, 142, 123, 216, 219, 233, 248, 89}};
static const Pubkey METADATA = {{11, 112, 101, 177, 227, 209, 124, 69, 56, 157, 82, 127, 107, 4, 195, 205,
                                 88, 184, 108, 115, 26, 160, 253, 181, 73, 182, 209, 188, 3, 248, 41, 70}};
static const Pubkey RENT = {{6, 167, 213, 23, 25, 44, 92, 81, 33, 140, 201, 76, 61, 74, 241, 127,
                             88, 218, 238, 8, 155, 161, 253, 68, 227, 219, 217, 138, 0, 0, 0, 0}};

/* ---- accounts of the program: sha256("account:<Name>")[:8], then the fields ---- */

#define GlobalConfig_DISC 0xd9b0fca0ca9c0895ul
#define VerifierEntry_DISC 0x5d6499219e94f766ul
#define Project_DISC 0x138ef7b5cabda8cdul
#define Proposal_DISC 0x21358874bbbd5e1aul
#define Claimable_DISC 0x1a25f78f5088bfb3ul
#define SolVault_DISC 0xf881d11367e68415ul

typedef struct PACKED {
  u64 disc;
  Pubkey authority; /* zero once renounced */
  u64 next_project_id, next_proposal_id, verifier_count;
  u8 bump;
} GlobalConfig;
_Static_assert(sizeof(GlobalConfig) == 65, "GlobalConfig");

typedef struct PACKED { u64 disc; Pubkey verifier; i64 added_at; u8 bump; } VerifierEntry;
_Static_assert(sizeof(VerifierEntry) == 49, "VerifierEntry");

/* What a project is about: the same bytes in CreateProjectArgs and in Project. */
typedef struct PACKED {
  Hash protocol_hash, protocol_irys_id, repo_snapshot_hash, repo_snapshot_irys_id, benchmark_hash, benchmark_irys_id;
  i64 baseline_aggregate_score;
  Hash baseline_metrics_hash, baseline_metrics_irys_id;
} Research;
_Static_assert(sizeof(Research) == 264, "Research");

/* Up to the two strings; after them come Bumps, so those have no fixed place and are only ever written. */
typedef struct PACKED {
  u64 disc, id;
  Pubkey creator;
  i64 created_at;
  Research research;
  Hash current_best_code_hash, current_best_code_irys_id;
  i64 current_best_aggregate_score;
  Hash current_best_metrics_hash, current_best_metrics_irys_id;
  Pubkey current_best_miner, mint;
  u64 base_price, slope, miner_pool_cap, miner_pool_minted;
} Project;
_Static_assert(sizeof(Project) == 552, "Project");

typedef struct PACKED { u8 project, mint_authority, sol_vault, project_pool; } Bumps;
enum { PROJECT_SPACE = sizeof(Project) + 4 + MAX_NAME + 4 + MAX_SYMBOL + sizeof(Bumps) };

enum { PENDING, IN_REVIEW, APPROVED, REJECTED, EXPIRED };

typedef struct PACKED {
  u64 disc, id, project_id;
  Pubkey miner, reward_recipient;
  Hash code_hash, code_irys_id, benchmark_log_hash, benchmark_log_irys_id, metrics_hash, metrics_irys_id;
  i64 claimed_aggregate_score, verified_aggregate_score;
  u64 stake;
  i64 submitted_at, review_lock_until;
  Pubkey reviewer;
  u8 status, bump, escrow_bump;
} Proposal;
_Static_assert(sizeof(Proposal) == 355, "Proposal");

typedef struct PACKED { u64 disc, project_id; Pubkey account; u64 amount; u8 bump; } Claimable;
_Static_assert(sizeof(Claimable) == 57, "Claimable");

typedef struct PACKED { u64 disc, project_id; u8 bump; } SolVault;
_Static_assert(sizeof(SolVault) == 17, "SolVault");

/* SPL Token's, as far as they are read here. */
typedef struct PACKED { u32 has_authority; Pubkey authority; u64 supply; u8 decimals, initialized; } Mint;
typedef struct PACKED { Pubkey mint, owner; u64 amount; u32 has_delegate; Pubkey delegate; u8 state; } TokenAccount;

/* ---- arguments ---- */

typedef struct PACKED { Pubkey key; } KeyArgs;
typedef struct PACKED { u64 project_id, amount; } TradeArgs;
typedef struct PACKED { u64 id; } IdArgs;
typedef struct PACKED {
  u64 project_id;
  Hash code_hash, code_irys_id, benchmark_log_hash, benchmark_log_irys_id;
  i64 claimed_aggregate_score;
  u64 stake;
  Pubkey reward_recipient;
} SubmitArgs;
typedef struct PACKED { u64 id; i64 verified_aggregate_score; Hash metrics_hash, metrics_irys_id; } ApproveArgs;
typedef struct PACKED { u64 id; Hash metrics_hash, metrics_irys_id; } RejectArgs;
typedef struct PACKED { u64 base_price, slope, miner_pool_cap; } CurveArgs; /* end of CreateProjectArgs */

/* ---- events: sha256("event:<Name>")[:8], then the fields ---- */

#define EVENT(name, number, ...) \
  static const u64 name##_DISC = number; \
  typedef struct PACKED { u64 disc; __VA_ARGS__ } name
EVENT(BestUpdated, 0x58505357aae57f7ful,
      u64 project_id; Pubkey miner; i64 new_aggregate_score; Hash code_hash, code_irys_id;
      Hash metrics_hash, metrics_irys_id;);
EVENT(Bought, 0x682a4c9c18d738c1ul,
      u64 project_id; Pubkey buyer; u64 lamports_spent, tokens_out;);
EVENT(LedgerBurned, 0xbefa5ce4fba9400cul,
      u64 project_id, amount;);
EVENT(MinerRewardMinted, 0xdbdbc23722571134ul,
      u64 project_id; Pubkey miner; u64 amount;);
EVENT(OwnershipTransferred, 0x622632fab7cd3dacul,
      Pubkey previous_owner, new_owner;);
EVENT(ProjectCreated, 0xa8431fb91da30ac0ul,
      u64 project_id; Pubkey creator, mint; Hash protocol_hash, protocol_irys_id;);
EVENT(ProposalApproved, 0x31582b9de49b3146ul,
      u64 id; Pubkey verifier; i64 verified_aggregate_score; Hash metrics_hash, metrics_irys_id;);
EVENT(ProposalExpired, 0xdfa685d5340a0830ul,
      u64 id; Pubkey cranker;);
EVENT(ProposalRejected, 0xd018c9f026a10f4dul,
      u64 id; Pubkey verifier; Hash metrics_hash, metrics_irys_id;);
EVENT(ProposalSubmitted, 0x935abb8fb1d77f24ul,
      u64 id, project_id; Pubkey miner, reward_recipient; Hash code_hash, code_irys_id; i64 claimed_aggregate_score;
      u64 stake;);
EVENT(ReviewClaimed, 0x2d418fc4f923552cul,
      u64 id; Pubkey verifier; i64 review_lock_until;);
EVENT(ReviewReleased, 0x3e3df0f8ada1cd13ul,
      u64 id;);
EVENT(RewardClaimed, 0xafe5309e54571c31ul,
      u64 project_id; Pubkey account; u64 amount;);
EVENT(Sold, 0x0ac00b60cad2cbcdul,
      u64 project_id; Pubkey seller; u64 tokens_in, lamports_out;);
EVENT(StakeSlashed, 0x23f4ebda19c4292bul,
      u64 id; Pubkey beneficiary; u64 to_verifier_pool, burned;);
EVENT(VerifierAdded, 0x4e604035a1848371ul,
      Pubkey verifier;);
EVENT(VerifierRemoved, 0x633383972f080057ul,
      Pubkey verifier;);

static noinline void emit(const void *event, u64 len) {
  Slice data = {event, len};
  sol_log_data(&data, 1);
}

/* The braces of the fields are the caller's, in the order of the declaration. */
#define EMIT(kind, ...) do { const kind event_ = {kind##_DISC, __VA_ARGS__}; emit(&event_, sizeof event_); } while (0)

/* ---- the accounts of an instruction ---- */

enum { W = 1, S = 2 };
typedef struct { const char *name; u8 flags; const Pubkey *address; } Need; /* address: NULL where it varies */

typedef struct {
  Input in;
  const Need *needs;
} Ctx;

inl Account *account(Ctx *c, u64 at) { return &c->in.acc[at]; }
inl const Pubkey *key_of(const Ctx *c, u64 at) { return c->in.acc[at].key; }

static noinline u64 fail_at(const Ctx *c, u64 at, u64 code) { return fail_about(code, c->needs[at].name); }

static noinline u64 check_needs(const Ctx *c, u64 count) {
  for (u64 i = 0; i < count; i++) {
    const Need *need = &c->needs[i];
    if (i >= c->in.n) return fail_at(c, i, AccountNotEnoughKeys);
    const Account *a = &c->in.acc[i];
    if (need->flags & S && !a->signer) return fail_at(c, i, AccountNotSigner);
    if (need->flags & W && !a->writable) return fail_at(c, i, ConstraintMut);
    if (need->address && !key_eq(need->address, a->key))
      return fail_at(c, i, need->address == &RENT ? AccountSysvarMismatch : InvalidProgramId);
  }
  return 0;
}

/* A program-derived address: its seeds, bump last once it is found. Holds pointers into itself. */
typedef struct { Slice part[4]; u64 n; u64 id; u8 bump; } Seeds;

inl void seed(Seeds *s, const void *bytes, u64 len) { s->part[s->n++] = (Slice){bytes, len}; }

inl void seed_word(Seeds *s, const u8 *word, u64 len) {
  s->n = 0;
  seed(s, word, len);
}

inl void seed_id(Seeds *s, u64 id) {
  s->id = id;
  seed(s, &s->id, 8);
}

/* Refuse the account at `at` unless these seeds give its address with the canonical bump. */
static noinline u64 check_derived(const Ctx *c, u64 at, Seeds *s, const Pubkey *program, u64 error) {
  Pubkey found;
  if (sol_try_find_program_address(s->part, s->n, program, &found, &s->bump) || !key_eq(&found, key_of(c, at)))
    return fail_at(c, at, error);
  seed(s, &s->bump, 1);
  return 0;
}

static noinline u64 check_seeds(const Ctx *c, u64 at, Seeds *s) {
  return check_derived(c, at, s, c->in.program, ConstraintSeeds);
}

inl u64 pda(const Ctx *c, u64 at, Seeds *s, const u8 *word, u64 len) {
  seed_word(s, word, len);
  return check_seeds(c, at, s);
}

inl u64 pda_of_id(const Ctx *c, u64 at, Seeds *s, const u8 *word, u64 len, u64 id) {
  seed_word(s, word, len);
  seed_id(s, id);
  return check_seeds(c, at, s);
}

inl bool is_ours(const Ctx *c, u64 at) { return key_eq(c->in.acc[at].owner, c->in.program); }

/* Refuse the account at `at` unless it is ours, of this kind and at least this long; not ours is `missing`. */
static noinline u64 check_kind(const Ctx *c, u64 at, u64 disc, u64 space, u64 missing) {
  const Account *a = &c->in.acc[at];
  if (!is_ours(c, at)) return fail_at(c, at, missing);
  if (a->len < space) return fail_at(c, at, AccountDidNotDeserialize);
  return rd64(a->data) == disc ? 0 : fail_at(c, at, AccountDiscriminatorMismatch);
}

/* A token account of this mint and this owner. */
static noinline u64 check_token_account(const Ctx *c, u64 at, const Pubkey *mint, const Pubkey *owner) {
  const Account *a = &c->in.acc[at];
  const TokenAccount *token = (const TokenAccount *)a->data;
  if (!key_eq(a->owner, &TOKEN)) return fail_at(c, at, AccountOwnedByWrongProgram);
  if (data_len(a) != TOKEN_SPACE) return fail_at(c, at, AccountDidNotDeserialize); /* for one, a mint */
  if (!token->state) return fail_at(c, at, AccountNotInitialized);
  if (!key_eq(&token->mint, mint)) return fail_at(c, at, ConstraintTokenMint);
  return key_eq(&token->owner, owner) ? 0 : fail_at(c, at, ConstraintTokenOwner);
}

static noinline u64 open_config(Ctx *c, u64 at) {
  Seeds s;
  TRY(pda(c, at, &s, STR("config")));
  return check_kind(c, at, GlobalConfig_DISC, sizeof(GlobalConfig), AccountNotInitialized);
}

/* The config, for its authority only. */
static noinline u64 open_config_as_authority(Ctx *c, u64 authority, u64 at) {
  TRY(open_config(c, at));
  const GlobalConfig *config = (const GlobalConfig *)account(c, at)->data;
  return key_eq(&config->authority, key_of(c, authority)) ? 0 : fail(Unauthorized);
}

static noinline u64 find_verifier(Ctx *c, u64 at, const Pubkey *verifier, Seeds *s) {
  seed_word(s, STR("verifier"));
  seed(s, verifier, 32);
  return check_seeds(c, at, s);
}

static noinline u64 open_verifier(Ctx *c, u64 at, const Pubkey *verifier, u64 missing) {
  Seeds s;
  TRY(find_verifier(c, at, verifier, &s));
  return check_kind(c, at, VerifierEntry_DISC, sizeof(VerifierEntry), missing);
}

/* The project at `at` and, after it, its mint. */
static noinline u64 open_project(Ctx *c, u64 at, u64 id) {
  Seeds s;
  TRY(pda_of_id(c, at, &s, STR("project"), id));
  TRY(check_kind(c, at, Project_DISC, PROJECT_SPACE, UnknownProject));
  TRY(pda_of_id(c, at + 1, &s, STR("mint"), id));
  const Account *mint = account(c, at + 1);
  if (!key_eq(mint->owner, &TOKEN)) return fail_at(c, at + 1, AccountOwnedByWrongProgram);
  bool ready = mint->len == MINT_SPACE && ((const Mint *)mint->data)->initialized;
  return ready ? 0 : fail_at(c, at + 1, AccountNotInitialized);
}

/* The project at `at`, its mint and its mint authority in a row; `authority` signs for the last. */
static noinline u64 open_market(Ctx *c, u64 at, u64 id, Seeds *authority) {
  TRY(open_project(c, at, id));
  return pda_of_id(c, at + 2, authority, STR("mint_authority"), id);
}

static noinline u64 open_vault(Ctx *c, u64 at, u64 id) {
  Seeds s;
  TRY(pda_of_id(c, at, &s, STR("sol_vault"), id));
  return check_kind(c, at, SolVault_DISC, sizeof(SolVault), AccountNotInitialized);
}

static noinline u64 open_proposal(Ctx *c, u64 at, u64 id) {
  Seeds s;
  TRY(pda_of_id(c, at, &s, STR("proposal"), id));
  return check_kind(c, at, Proposal_DISC, sizeof(Proposal), UnknownProposal);
}

/* The proposal's escrow at `at`; `market` is where its project stands. */
static noinline u64 open_escrow(Ctx *c, u64 at, u64 id, u64 market) {
  Seeds s;
  TRY(pda_of_id(c, at, &s, STR("proposal_escrow"), id));
  return check_token_account(c, at, key_of(c, market + 1), key_of(c, market + 2));
}

static noinline u64 open_pool(Ctx *c, u64 at, u64 id, u64 market) {
  Seeds s;
  TRY(pda_of_id(c, at, &s, STR("pool"), id));
  return check_token_account(c, at, key_of(c, market + 1), key_of(c, market + 2));
}

static noinline u64 find_claimable(Ctx *c, u64 at, u64 id, const Pubkey *who, Seeds *s) {
  seed_word(s, STR("claim"));
  seed_id(s, id);
  seed(s, who, 32);
  return check_seeds(c, at, s);
}

/* ---- calls into other programs ---- */

static noinline u64 call(Ctx *c, const Call *what, const Seeds *s) {
  if (!s) return sol_invoke_signed_c(what, c->in.acc, (int)c->in.n, NULL, 0);
  Signer signer = {s->part, s->n};
  return sol_invoke_signed_c(what, c->in.acc, (int)c->in.n, &signer, 1);
}

/* Lamports from a signer's wallet. */
static noinline u64 pay(Ctx *c, u64 from, u64 to, u64 lamports) {
  u8 data[12];
  wr32(data, 2); /* Transfer */
  wr64(data + 4, lamports);
  Meta metas[] = {{key_of(c, from), 1, 1}, {key_of(c, to), 1, 0}};
  Call transfer = {&SYSTEM, metas, LEN(metas), data, sizeof data};
  return call(c, &transfer, NULL);
}

/* Lamports that exempt an account from rent. Its threshold is 2 years in older clusters, 1 in newer ones,
 * where the price of a byte doubled: the float is compared by its bits. */
static noinline u64 rent_for(u64 space) {
  Rent rent;
  sol_get_rent_sysvar(&rent);
  return (128 + space) * rent.per_byte * (rent.threshold_f64 == 0x4000000000000000ul ? 2 : 1);
}

/* Make the PDA at `at` an account of `owner`, paid by account 0. The system program's own CreateAccount
 * refuses an address that holds lamports, and anybody can send some there: so fund what is missing,
 * allocate and assign. Where the account exists already, Allocate fails. */
static noinline u64 create(Ctx *c, u64 at, u64 space, const Pubkey *owner, const Seeds *s) {
  u64 needed = rent_for(space), held = *account(c, at)->lamports;
  if (held < needed) TRY(pay(c, 0, at, needed - held));
  u8 data[36];
  Meta metas[] = {{key_of(c, at), 1, 1}};
  wr32(data, 8); /* Allocate */
  wr64(data + 4, space);
  Call allocate = {&SYSTEM, metas, 1, data, 12};
  TRY(call(c, &allocate, s));
  wr32(data, 1); /* Assign */
  __builtin_memcpy(data + 4, owner, 32);
  Call assign = {&SYSTEM, metas, 1, data, 36};
  return call(c, &assign, s);
}

/* A token account at the PDA `at`; mint and owner are given by their places. */
typedef struct { u64 at, mint, owner; } TokenPlace;

static noinline u64 create_token_account(Ctx *c, const TokenPlace *place, const Seeds *s) {
  TRY(create(c, place->at, TOKEN_SPACE, &TOKEN, s));
  u8 data[33];
  data[0] = 18; /* InitializeAccount3 */
  __builtin_memcpy(data + 1, key_of(c, place->owner), 32);
  Meta metas[] = {{key_of(c, place->at), 1, 0}, {key_of(c, place->mint), 0, 0}};
  Call initialize = {&TOKEN, metas, LEN(metas), data, sizeof data};
  return call(c, &initialize, NULL);
}

/* SPL Token's Transfer, MintTo and Burn take alike: two writable accounts, then who signs. */
enum { TRANSFER = 3, MINT_TO = 7, BURN = 8 };
typedef struct { u8 what; u8 first, second, authority; u64 amount; } TokenMove;

static noinline u64 move_tokens(Ctx *c, const TokenMove *move, const Seeds *s) {
  u8 data[9];
  data[0] = move->what;
  wr64(data + 1, move->amount);
  Meta metas[] = {{key_of(c, move->first), 1, 0}, {key_of(c, move->second), 1, 0}, {key_of(c, move->authority), 0, 1}};
  Call instruction = {&TOKEN, metas, LEN(metas), data, sizeof data};
  return call(c, &instruction, s);
}

#define MOVE(c, seeds, ...) move_tokens(c, &(const TokenMove){__VA_ARGS__}, seeds)

static noinline i64 now(void) {
  Clock clock;
  sol_get_clock_sysvar(&clock);
  return clock.unix_timestamp;
}

/* A time `seconds` after `start`; false where that overflows. */
inl bool later(i64 *out, i64 start, i64 seconds) { return !__builtin_add_overflow(start, seconds, out); }

static bool is_zero(const Pubkey *key) { return key_eq(key, &SYSTEM); }

/* ---- the program's authority and its verifiers ---- */

static const Need INITIALIZE[] = {{"authority", W | S, 0}, {"config", W, 0}, {"system_program", 0, &SYSTEM}};

static noinline u64 initialize(Ctx *c) {
  enum { AUTHORITY, CONFIG };
  Seeds s;
  TRY(pda(c, CONFIG, &s, STR("config")));
  TRY(create(c, CONFIG, sizeof(GlobalConfig), c->in.program, &s)); /* fails where there is one */
  GlobalConfig *config = (GlobalConfig *)account(c, CONFIG)->data;
  config->disc = GlobalConfig_DISC;
  config->authority = *key_of(c, AUTHORITY);
  config->bump = s.bump;
  return 0;
}

static const Need ADD_VERIFIER[] = {
  {"authority", W | S, 0}, {"config", W, 0}, {"verifier_entry", W, 0}, {"system_program", 0, &SYSTEM}};

static noinline u64 add_verifier(Ctx *c) {
  enum { AUTHORITY, CONFIG, ENTRY };
  const KeyArgs *args = (const KeyArgs *)c->in.data;
  Seeds s;
  TRY(open_config_as_authority(c, AUTHORITY, CONFIG));
  if (is_zero(&args->key)) return fail(ZeroAddress);
  TRY(find_verifier(c, ENTRY, &args->key, &s));
  if (is_ours(c, ENTRY)) return fail(AlreadyRegistered);

  GlobalConfig *config = (GlobalConfig *)account(c, CONFIG)->data;
  u64 count;
  if (!add64(&count, config->verifier_count, 1)) return fail(MathOverflow);
  TRY(create(c, ENTRY, sizeof(VerifierEntry), c->in.program, &s));
  VerifierEntry *entry = (VerifierEntry *)account(c, ENTRY)->data;
  entry->disc = VerifierEntry_DISC;
  entry->verifier = args->key;
  entry->added_at = now();
  entry->bump = s.bump;
  config->verifier_count = count;
  EMIT(VerifierAdded, args->key);
  return 0;
}

static const Need REMOVE_VERIFIER[] = {{"authority", W | S, 0}, {"config", W, 0}, {"verifier_entry", W, 0}};

/* Give an account of ours back: its lamports to `to`, no data, the system program's. */
static noinline u64 close_account(Ctx *c, u64 at, u64 to) {
  Account *closed = account(c, at);
  u64 *lamports = account(c, to)->lamports, sum;
  if (!add64(&sum, *lamports, *closed->lamports)) return fail(MathOverflow);
  *lamports = sum;
  *closed->lamports = 0;
  sol_memset_(closed->data, 0, closed->len); /* nothing may be read from it later in this transaction */
  wr64(closed->data - 8, 0);
  __builtin_memcpy((Pubkey *)closed->owner, &SYSTEM, 32);
  return 0;
}

static noinline u64 remove_verifier(Ctx *c) {
  enum { AUTHORITY, CONFIG, ENTRY };
  const KeyArgs *args = (const KeyArgs *)c->in.data;
  TRY(open_config_as_authority(c, AUTHORITY, CONFIG));
  TRY(open_verifier(c, ENTRY, &args->key, NotRegistered));

  GlobalConfig *config = (GlobalConfig *)account(c, CONFIG)->data;
  if (!config->verifier_count) return fail(MathOverflow);
  config->verifier_count--;
  TRY(close_account(c, ENTRY, AUTHORITY));
  EMIT(VerifierRemoved, args->key);
  return 0;
}

static noinline u64 hand_over(Ctx *c, const Pubkey *to) {
  enum { AUTHORITY, CONFIG };
  TRY(open_config_as_authority(c, AUTHORITY, CONFIG));
  GlobalConfig *config = (GlobalConfig *)account(c, CONFIG)->data;
  config->authority = *to;
  EMIT(OwnershipTransferred, *key_of(c, AUTHORITY), *to);
  return 0;
}

static const Need TRANSFER_AUTHORITY[] = {{"authority", S, 0}, {"config", W, 0}};

static noinline u64 transfer_authority(Ctx *c) {
  const KeyArgs *args = (const KeyArgs *)c->in.data;
  if (is_zero(&args->key)) return fail(ZeroAddress);
  return hand_over(c, &args->key);
}

static noinline u64 renounce_authority(Ctx *c) { return hand_over(c, &SYSTEM); }

/* ---- projects ---- */

typedef struct { const u8 *at, *end; } Reader;

static noinline bool read_bytes(Reader *r, Slice *out, u64 len) {
  if (len > (u64)(r->end - r->at)) return 0;
  *out = (Slice){r->at, len};
  r->at += len;
  return 1;
}

static noinline bool read_string(Reader *r, Slice *out) {
  Slice len;
  return read_bytes(r, &len, 4) && read_bytes(r, out, rd32(len.ptr));
}

/* As a Rust String requires: no overlong forms, no surrogates, nothing above U+10FFFF. Text that is not
 * UTF-8 would make the project unreadable for every client. */
static noinline bool is_utf8(const Slice *text) {
  const u8 *p = text->ptr, *end = p + text->len;
  while (p < end) {
    u64 first = *p++, follow = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    if (!follow) continue;
    if (first < 0xc2 || first > 0xf4 || (u64)(end - p) < follow) return 0;
    u64 low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    u64 high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    for (; follow; follow--, low = 0x80, high = 0xbf) {
      u64 byte = *p++;
      if (byte < low || byte > high) return 0;
    }
  }
  return 1;
}

typedef struct {
  const Research *research;
  Slice name, symbol;
  const CurveArgs *curve;
} ProjectArgs;

static noinline u64 read_project_args(const Input *in, ProjectArgs *out) {
  Reader r = {in->data, in->data + in->len};
  Slice research, curve;
  if (!read_bytes(&r, &research, sizeof(Research)) || !read_string(&r, &out->name) || !read_string(&r, &out->symbol) ||
      !read_bytes(&r, &curve, sizeof(CurveArgs)) || r.at != r.end)
    return fail(InstructionDidNotDeserialize);
  if (out->name.len > MAX_NAME || out->symbol.len > MAX_SYMBOL) return fail(StringTooLong);
  if (!is_utf8(&out->name) || !is_utf8(&out->symbol)) return fail(InstructionDidNotDeserialize);
  out->research = (const Research *)research.ptr;
  out->curve = (const CurveArgs *)curve.ptr;
  u64 second_price;
  if (!add64(&second_price, out->curve->base_price, out->curve->slope)) return fail(MathOverflow);
  return second_price ? 0 : fail(InvalidCurve);
}

static noinline u8 *write(u8 *to, const void *from, u64 len) {
  sol_memcpy_(to, from, len);
  return to + len;
}

static noinline u8 *write_string(u8 *to, const Slice *text) {
  wr32(to, (u32)text->len);
  return write(to + 4, text->ptr, text->len);
}

static const Need CREATE_PROJECT[] = {
  {"creator", W | S, 0}, {"config", W, 0}, {"project", W, 0}, {"mint", W, 0}, {"mint_authority", 0, 0},
  {"sol_vault", W, 0}, {"project_pool", W, 0}, {"token_metadata", W, 0}, {"token_program", 0, &TOKEN},
  {"associated_token_program", 0, &ASSOCIATED_TOKEN}, {"metadata_program", 0, &METADATA},
  {"system_program", 0, &SYSTEM}, {"rent", 0, &RENT}};
enum {
  NEW_CREATOR, NEW_CONFIG, NEW_PROJECT, NEW_MINT, NEW_AUTHORITY, NEW_VAULT, NEW_POOL, NEW_METADATA,
  NEW_METADATA_PROGRAM = 10,
};

/* The seeds of what create_project creates. */
typedef struct { Seeds project, mint, authority, vault, pool; } ProjectSeeds;

static noinline u64 find_project(Ctx *c, u64 id, ProjectSeeds *s) {
  TRY(pda_of_id(c, NEW_PROJECT, &s->project, STR("project"), id));
  TRY(pda_of_id(c, NEW_MINT, &s->mint, STR("mint"), id));
  TRY(pda_of_id(c, NEW_AUTHORITY, &s->authority, STR("mint_authority"), id));
  TRY(pda_of_id(c, NEW_VAULT, &s->vault, STR("sol_vault"), id));
  TRY(pda_of_id(c, NEW_POOL, &s->pool, STR("pool"), id));
  Seeds metadata;
  seed_word(&metadata, STR("metadata"));
  seed(&metadata, &METADATA, 32);
  seed(&metadata, key_of(c, NEW_MINT), 32);
  return check_derived(c, NEW_METADATA, &metadata, &METADATA, ConstraintSeeds);
}

/* The token: no decimals, and the mint authority may freeze as well as mint. */
static noinline u64 create_mint(Ctx *c, const Seeds *s) {
  TRY(create(c, NEW_MINT, MINT_SPACE, &TOKEN, s));
  u8 data[67];
  data[0] = 20; /* InitializeMint2 */
  data[1] = 0;
  __builtin_memcpy(data + 2, key_of(c, NEW_AUTHORITY), 32);
  data[34] = 1;
  __builtin_memcpy(data + 35, key_of(c, NEW_AUTHORITY), 32);
  Meta metas[] = {{key_of(c, NEW_MINT), 1, 0}};
  Call initialize = {&TOKEN, metas, 1, data, sizeof data};
  return call(c, &initialize, NULL);
}

/* Metaplex' CreateMetadataAccountV3: name and symbol, nothing else, and nobody can change it. */
static noinline u64 create_metadata(Ctx *c, const ProjectArgs *args, const Seeds *authority) {
  u8 data[1 + 4 + MAX_NAME + 4 + MAX_SYMBOL + 11], *p = data;
  *p++ = 33;
  p = write_string(p, &args->name);
  p = write_string(p, &args->symbol);
  sol_memset_(p, 0, 11); /* uri "" (4), fee 0 (2), no creators, collection, uses; immutable; no collection details */
  const Pubkey *signer = key_of(c, NEW_AUTHORITY);
  Meta metas[] = {{key_of(c, NEW_METADATA), 1, 0}, {key_of(c, NEW_MINT), 0, 0}, {signer, 0, 1},
                  {key_of(c, NEW_CREATOR), 1, 1}, {signer, 0, 1}, {&SYSTEM, 0, 0}, {&RENT, 0, 0}};
  Call create = {&METADATA, metas, LEN(metas), data, (u64)(p + 11 - data)};
  return call(c, &create, authority);
}

static noinline void write_project(Ctx *c, u64 id, const ProjectArgs *args, const ProjectSeeds *s) {
  Project *project = (Project *)account(c, NEW_PROJECT)->data; /* all zero so far */
  project->disc = Project_DISC;
  project->id = id;
  project->creator = *key_of(c, NEW_CREATOR);
  project->created_at = now();
  sol_memcpy_(&project->research, args->research, sizeof(Research));
  project->current_best_aggregate_score = args->research->baseline_aggregate_score; /* CHOICE: to be improved upon */
  project->mint = *key_of(c, NEW_MINT);
  project->base_price = args->curve->base_price;
  project->slope = args->curve->slope;
  project->miner_pool_cap = args->curve->miner_pool_cap;
  u8 *rest = write_string((u8 *)(project + 1), &args->name);
  rest = write_string(rest, &args->symbol);
  *(Bumps *)rest = (Bumps){s->project.bump, s->authority.bump, s->vault.bump, s->pool.bump};
}

static noinline u64 create_project(Ctx *c) {
  ProjectArgs args;
  ProjectSeeds s;
  TRY(read_project_args(&c->in, &args));
  TRY(open_config(c, NEW_CONFIG));
  GlobalConfig *config = (GlobalConfig *)account(c, NEW_CONFIG)->data;
  u64 id = config->next_project_id, next;
  if (!add64(&next, id, 1)) return fail(MathOverflow);
  TRY(find_project(c, id, &s)); /* of another id where somebody else's project came first */
  config->next_project_id = next;

  TRY(create(c, NEW_PROJECT, PROJECT_SPACE, c->in.program, &s.project));
  write_project(c, id, &args, &s);
  TRY(create(c, NEW_VAULT, sizeof(SolVault), c->in.program, &s.vault));
  SolVault *vault = (SolVault *)account(c, NEW_VAULT)->data;
  vault->disc = SolVault_DISC;
  vault->project_id = id;
  vault->bump = s.vault.bump;
  TRY(create_mint(c, &s.mint));
  TokenPlace pool = {NEW_POOL, NEW_MINT, NEW_AUTHORITY};
  TRY(create_token_account(c, &pool, &s.pool));
  if (account(c, NEW_METADATA_PROGRAM)->executable) TRY(create_metadata(c, &args, &s.authority));
  EMIT(ProjectCreated, id, *key_of(c, NEW_CREATOR), *key_of(c, NEW_MINT), args.research->protocol_hash,
       args.research->protocol_irys_id);
  return 0;
}

/* ---- the curve: the token after `supply` others costs base_price + slope * supply ---- */

/* Lamports for the `n` tokens after `supply`: n*base + slope*(n*supply + n(n-1)/2). False at 2^64 or more. */
static noinline bool cost_of(u64 *out, const Project *project, u64 supply, u64 n) {
  u64 base, steps, pairs, sloped;
  if (!mul64(&base, n, project->base_price)) return 0;
  *out = base;
  if (!project->slope || !n) return 1;
  return mul64(&steps, n, supply) && mul64(&pairs, n & 1 ? n : n / 2, n & 1 ? n / 2 : n - 1) &&
         add64(&steps, steps, pairs) && mul64(&sloped, steps, project->slope) && add64(out, base, sloped);
}

/* The most tokens that `lamports` pay for, bit by bit from the top: the cost never falls as n grows. */
static noinline u64 affordable(const Project *project, u64 supply, u64 lamports) {
  u64 n = 0, cost;
  for (u64 bit = 1ul << 63; bit; bit >>= 1)
    if (cost_of(&cost, project, supply, n | bit) && cost <= lamports) n |= bit;
  return n;
}

static const Need BUY[] = {
  {"buyer", W | S, 0}, {"project", 0, 0}, {"mint", W, 0}, {"mint_authority", 0, 0}, {"sol_vault", W, 0},
  {"buyer_token_account", W, 0}, {"token_program", 0, &TOKEN}, {"associated_token_program", 0, &ASSOCIATED_TOKEN},
  {"system_program", 0, &SYSTEM}};

/* The associated token account at `at` of `owner`, which pays for it where it is missing. */
static noinline u64 open_associated(Ctx *c, u64 at, u64 owner, u64 mint) {
  Seeds s;
  s.n = 0;
  seed(&s, key_of(c, owner), 32);
  seed(&s, &TOKEN, 32);
  seed(&s, key_of(c, mint), 32);
  TRY(check_derived(c, at, &s, &ASSOCIATED_TOKEN, AccountNotAssociatedTokenAccount));
  if (!key_eq(account(c, at)->owner, &TOKEN)) {
    u8 idempotent = 1;
    Meta metas[] = {{key_of(c, owner), 1, 1}, {key_of(c, at), 1, 0}, {key_of(c, owner), 0, 0},
                    {key_of(c, mint), 0, 0}, {&SYSTEM, 0, 0}, {&TOKEN, 0, 0}};
    Call create = {&ASSOCIATED_TOKEN, metas, LEN(metas), &idempotent, 1};
    TRY(call(c, &create, NULL));
  }
  return check_token_account(c, at, key_of(c, mint), key_of(c, owner)); /* its owner may have given it away */
}

static noinline u64 buy(Ctx *c) {
  enum { BUYER, PROJECT, MINT, AUTHORITY, VAULT, TOKENS };
  const TradeArgs *args = (const TradeArgs *)c->in.data;
  Seeds authority;
  TRY(open_market(c, PROJECT, args->project_id, &authority));
  TRY(open_vault(c, VAULT, args->project_id));
  if (!args->amount) return fail(ZeroAmount);

  const Project *project = (const Project *)account(c, PROJECT)->data;
  u64 supply = ((const Mint *)account(c, MINT)->data)->supply, cost, after;
  if (!cost_of(&cost, project, supply, 1)) return fail(MathOverflow);
  u64 tokens = affordable(project, supply, args->amount);
  if (!tokens) return fail(InsufficientPayment);
  if (!add64(&after, supply, tokens)) return fail(OverSupply);
  if (!cost_of(&cost, project, supply, tokens)) return fail(MathOverflow);

  TRY(open_associated(c, TOKENS, BUYER, MINT));
  TRY(pay(c, BUYER, VAULT, cost));
  TRY(MOVE(c, &authority, MINT_TO, MINT, TOKENS, AUTHORITY, tokens));
  EMIT(Bought, args->project_id, *key_of(c, BUYER), cost, tokens);
  return 0;
}

static const Need SELL[] = {{"seller", W | S, 0}, {"project", 0, 0}, {"mint", W, 0}, {"sol_vault", W, 0},
                            {"seller_token_account", W, 0}, {"token_program", 0, &TOKEN}};

static noinline u64 sell(Ctx *c) {
  enum { SELLER, PROJECT, MINT, VAULT, TOKENS };
  const TradeArgs *args = (const TradeArgs *)c->in.data;
  TRY(open_project(c, PROJECT, args->project_id));
  TRY(open_vault(c, VAULT, args->project_id));
  TRY(check_token_account(c, TOKENS, key_of(c, MINT), key_of(c, SELLER)));
  if (!args->amount) return fail(ZeroAmount);

  u64 supply = ((const Mint *)account(c, MINT)->data)->supply, out, sum;
  if (args->amount > supply) return fail(OverSupply);
  if (!cost_of(&out, (const Project *)account(c, PROJECT)->data, supply - args->amount, args->amount))
    return fail(MathOverflow);
  TRY(MOVE(c, NULL, BURN, TOKENS, MINT, SELLER, args->amount));
  /* Rewards add to the supply without paying in, so the vault can hold less than the curve promises. */
  u64 *vault = account(c, VAULT)->lamports, *seller = account(c, SELLER)->lamports;
  if (*vault < out || *vault - out < rent_for(sizeof(SolVault))) return fail(SolTransferFailed);
  if (!add64(&sum, *seller, out)) return fail(MathOverflow);
  *vault -= out;
  *seller = sum;
  EMIT(Sold, args->project_id, *key_of(c, SELLER), args->amount, out);
  return 0;
}

/* ---- proposals ---- */

static const Need SUBMIT[] = {
  {"miner", W | S, 0}, {"config", W, 0}, {"project", 0, 0}, {"mint", 0, 0}, {"mint_authority", 0, 0},
  {"proposal", W, 0}, {"proposal_escrow", W, 0}, {"miner_token_account", W, 0}, {"token_program", 0, &TOKEN},
  {"system_program", 0, &SYSTEM}, {"rent", 0, &RENT}};

static noinline u64 submit(Ctx *c) {
  enum { MINER, CONFIG, PROJECT, MINT, AUTHORITY, PROPOSAL, ESCROW, TOKENS };
  const SubmitArgs *args = (const SubmitArgs *)c->in.data;
  Seeds authority, at, escrow_at;
  TRY(open_config(c, CONFIG));
  TRY(open_market(c, PROJECT, args->project_id, &authority));
  TRY(check_token_account(c, TOKENS, key_of(c, MINT), key_of(c, MINER)));
  if (!args->stake) return fail(ZeroStake);
  if (is_zero(&args->reward_recipient)) return fail(ZeroAddress);
  GlobalConfig *config = (GlobalConfig *)account(c, CONFIG)->data;
  u64 id = config->next_proposal_id, next;
  if (!add64(&next, id, 1)) return fail(MathOverflow);
  TRY(pda_of_id(c, PROPOSAL, &at, STR("proposal"), id)); /* fails for the slower of two miners */
  TRY(pda_of_id(c, ESCROW, &escrow_at, STR("proposal_escrow"), id));
  config->next_proposal_id = next;

  TRY(create(c, PROPOSAL, sizeof(Proposal), c->in.program, &at));
  Proposal *proposal = (Proposal *)account(c, PROPOSAL)->data; /* all zero: pending, no reviewer, no metrics */
  proposal->disc = Proposal_DISC;
  proposal->id = id;
  proposal->project_id = args->project_id;
  proposal->miner = *key_of(c, MINER);
  proposal->reward_recipient = args->reward_recipient;
  proposal->code_hash = args->code_hash;
  proposal->code_irys_id = args->code_irys_id;
  proposal->benchmark_log_hash = args->benchmark_log_hash;
  proposal->benchmark_log_irys_id = args->benchmark_log_irys_id;
  proposal->claimed_aggregate_score = args->claimed_aggregate_score;
  proposal->stake = args->stake;
  proposal->submitted_at = now();
  proposal->status = PENDING;
  proposal->bump = at.bump;
  proposal->escrow_bump = escrow_at.bump;
  TokenPlace escrow = {ESCROW, MINT, AUTHORITY};
  TRY(create_token_account(c, &escrow, &escrow_at));
  TRY(MOVE(c, NULL, TRANSFER, TOKENS, ESCROW, MINER, args->stake));
  EMIT(ProposalSubmitted, id, args->project_id, *key_of(c, MINER), args->reward_recipient, args->code_hash,
       args->code_irys_id, args->claimed_aggregate_score, args->stake);
  return 0;
}

/* A lock holds up to and including its last second. */
inl bool is_locked(const Proposal *proposal) {
  return proposal->status == IN_REVIEW && now() <= proposal->review_lock_until;
}

/* Refuse a proposal that was settled. */
static noinline u64 check_open(const Proposal *proposal) {
  return proposal->status == PENDING || proposal->status == IN_REVIEW ? 0 : fail(WrongStatus);
}

/* Refuse anything but a proposal that nobody has settled and nobody is reviewing.
 * CHOICE: one under review is LockActive, a settled one WrongStatus. */
static noinline u64 check_free(const Proposal *proposal) {
  TRY(check_open(proposal));
  return is_locked(proposal) ? fail(LockActive) : 0;
}

static const Need CLAIM_REVIEW[] = {{"verifier", S, 0}, {"verifier_entry", 0, 0}, {"proposal", W, 0}};

static noinline u64 claim_review(Ctx *c) {
  enum { VERIFIER, ENTRY, PROPOSAL };
  const IdArgs *args = (const IdArgs *)c->in.data;
  TRY(open_verifier(c, ENTRY, key_of(c, VERIFIER), NotVerifier));
  TRY(open_proposal(c, PROPOSAL, args->id));
  Proposal *proposal = (Proposal *)account(c, PROPOSAL)->data;
  TRY(check_free(proposal));
  i64 until;
  if (!later(&until, now(), REVIEW_LOCK_SECONDS)) return fail(MathOverflow);
  proposal->status = IN_REVIEW;
  proposal->reviewer = *key_of(c, VERIFIER);
  proposal->review_lock_until = until;
  EMIT(ReviewClaimed, args->id, *key_of(c, VERIFIER), until);
  return 0;
}

static const Need RELEASE_REVIEW[] = {{"cranker", S, 0}, {"proposal", W, 0}};

static noinline u64 release_review(Ctx *c) {
  enum { CRANKER, PROPOSAL };
  const IdArgs *args = (const IdArgs *)c->in.data;
  TRY(open_proposal(c, PROPOSAL, args->id));
  Proposal *proposal = (Proposal *)account(c, PROPOSAL)->data;
  if (proposal->status != IN_REVIEW) return fail(WrongStatus);
  /* CHOICE: the reviewer at any time, anyone else once the lock has lapsed. */
  if (!key_eq(&proposal->reviewer, key_of(c, CRANKER)) && is_locked(proposal)) return fail(LockActive);
  proposal->status = PENDING;
  proposal->reviewer = SYSTEM; /* the zero key */
  proposal->review_lock_until = 0;
  EMIT(ReviewReleased, args->id);
  return 0;
}

/* Refuse anybody but the verifier who claimed the review, and him once his lock has lapsed. */
static noinline u64 check_reviewer(const Proposal *proposal, const Pubkey *verifier) {
  if (proposal->status != IN_REVIEW) return fail(WrongStatus);
  if (!key_eq(&proposal->reviewer, verifier)) return fail(WrongReviewer);
  return is_locked(proposal) ? 0 : fail(LockExpired);
}

static const Need APPROVE[] = {
  {"verifier", W | S, 0}, {"verifier_entry", 0, 0}, {"proposal", W, 0}, {"project", W, 0}, {"mint", W, 0},
  {"mint_authority", 0, 0}, {"proposal_escrow", W, 0}, {"miner_token_account", W, 0},
  {"reward_recipient_token_account", W, 0}, {"token_program", 0, &TOKEN}};

/* CHOICE: the emptied escrow stays. Its rent is the miner's, whose wallet is not among the accounts. */
static noinline u64 approve(Ctx *c) {
  enum { VERIFIER, ENTRY, PROPOSAL, PROJECT, MINT, AUTHORITY, ESCROW, MINER_TOKENS, RECIPIENT_TOKENS };
  const ApproveArgs *args = (const ApproveArgs *)c->in.data;
  Seeds authority;
  TRY(open_verifier(c, ENTRY, key_of(c, VERIFIER), NotVerifier));
  TRY(open_proposal(c, PROPOSAL, args->id));
  Proposal *proposal = (Proposal *)account(c, PROPOSAL)->data;
  TRY(open_market(c, PROJECT, proposal->project_id, &authority));
  Project *project = (Project *)account(c, PROJECT)->data;
  TRY(open_escrow(c, ESCROW, args->id, PROJECT));
  TRY(check_token_account(c, MINER_TOKENS, key_of(c, MINT), &proposal->miner));
  TRY(check_token_account(c, RECIPIENT_TOKENS, key_of(c, MINT), &proposal->reward_recipient));
  TRY(check_reviewer(proposal, key_of(c, VERIFIER)));
  if (args->verified_aggregate_score <= project->current_best_aggregate_score) return fail(ScoreNotImproved);
  u64 minted;
  if (!add64(&minted, project->miner_pool_minted, REWARD_TOKENS)) return fail(MathOverflow);
  if (minted > project->miner_pool_cap) return fail(PoolCapExceeded);

  proposal->status = APPROVED;
  proposal->verified_aggregate_score = args->verified_aggregate_score;
  proposal->metrics_hash = args->metrics_hash;
  proposal->metrics_irys_id = args->metrics_irys_id;
  project->miner_pool_minted = minted;
  project->current_best_aggregate_score = args->verified_aggregate_score;
  project->current_best_code_hash = proposal->code_hash;
  project->current_best_code_irys_id = proposal->code_irys_id;
  project->current_best_metrics_hash = args->metrics_hash;
  project->current_best_metrics_irys_id = args->metrics_irys_id;
  project->current_best_miner = proposal->miner;
  TRY(MOVE(c, &authority, TRANSFER, ESCROW, MINER_TOKENS, AUTHORITY, proposal->stake));
  TRY(MOVE(c, &authority, MINT_TO, MINT, RECIPIENT_TOKENS, AUTHORITY, REWARD_TOKENS));
  EMIT(ProposalApproved, args->id, *key_of(c, VERIFIER), args->verified_aggregate_score, args->metrics_hash,
       args->metrics_irys_id);
  EMIT(BestUpdated, proposal->project_id, proposal->miner, args->verified_aggregate_score, proposal->code_hash,
       proposal->code_irys_id, args->metrics_hash, args->metrics_irys_id);
  /* CHOICE: the event names the miner, who need not be the recipient. */
  EMIT(MinerRewardMinted, proposal->project_id, proposal->miner, REWARD_TOKENS);
  return 0;
}

/* What reject and expire have in common stands in the same order after their proposal. */
enum { TO_PROJECT = 1, TO_MINT, TO_AUTHORITY, TO_ESCROW, TO_POOL, TO_CLAIMABLE };
typedef struct { Seeds authority, claimable; } SlashSeeds;

/* The proposal at `at` and all that follows it; account 0 is who may claim a part of the stake. */
static noinline u64 open_slash(Ctx *c, u64 at, u64 id, SlashSeeds *s) {
  TRY(open_proposal(c, at, id));
  u64 project_id = ((const Proposal *)account(c, at)->data)->project_id;
  TRY(open_market(c, at + TO_PROJECT, project_id, &s->authority));
  TRY(open_escrow(c, at + TO_ESCROW, id, at + TO_PROJECT));
  TRY(open_pool(c, at + TO_POOL, project_id, at + TO_PROJECT));
  TRY(find_claimable(c, at + TO_CLAIMABLE, project_id, key_of(c, 0), &s->claimable));
  if (!is_ours(c, at + TO_CLAIMABLE)) return 0; /* to be created */
  return check_kind(c, at + TO_CLAIMABLE, Claimable_DISC, sizeof(Claimable), AccountNotInitialized);
}

/* Half of the stake to the pool, claimable by account 0, the rest burned. CHOICE: of an odd stake the burn
 * takes the larger half. The stake is what counts, not the escrow's balance, which anybody can add to. */
static noinline u64 slash(Ctx *c, u64 at, const SlashSeeds *s) {
  const Proposal *proposal = (const Proposal *)account(c, at)->data;
  u64 to_pool = proposal->stake / SLASH_BASIS * SLASH_TO_POOL +
                proposal->stake % SLASH_BASIS * SLASH_TO_POOL / SLASH_BASIS;
  u64 burned = proposal->stake - to_pool, amount;
  Claimable *claimable = (Claimable *)account(c, at + TO_CLAIMABLE)->data;
  if (!is_ours(c, at + TO_CLAIMABLE)) {
    TRY(create(c, at + TO_CLAIMABLE, sizeof(Claimable), c->in.program, &s->claimable));
    claimable->disc = Claimable_DISC;
    claimable->project_id = proposal->project_id;
    claimable->account = *key_of(c, 0);
    claimable->bump = s->claimable.bump;
  }
  if (!add64(&amount, claimable->amount, to_pool)) return fail(MathOverflow);
  claimable->amount = amount;
  u8 first = (u8)at;
  TRY(MOVE(c, &s->authority, TRANSFER, first + TO_ESCROW, first + TO_POOL, first + TO_AUTHORITY, to_pool));
  TRY(MOVE(c, &s->authority, BURN, first + TO_ESCROW, first + TO_MINT, first + TO_AUTHORITY, burned));
  EMIT(StakeSlashed, proposal->id, *key_of(c, 0), to_pool, burned);
  EMIT(LedgerBurned, proposal->project_id, burned);
  return 0;
}

static const Need REJECT[] = {
  {"verifier", W | S, 0}, {"verifier_entry", 0, 0}, {"proposal", W, 0}, {"project", 0, 0}, {"mint", W, 0},
  {"mint_authority", 0, 0}, {"proposal_escrow", W, 0}, {"project_pool", W, 0}, {"claimable", W, 0},
  {"token_program", 0, &TOKEN}, {"system_program", 0, &SYSTEM}};

static noinline u64 reject(Ctx *c) {
  enum { VERIFIER, ENTRY, PROPOSAL };
  const RejectArgs *args = (const RejectArgs *)c->in.data;
  SlashSeeds s;
  TRY(open_verifier(c, ENTRY, key_of(c, VERIFIER), NotVerifier));
  TRY(open_slash(c, PROPOSAL, args->id, &s));
  Proposal *proposal = (Proposal *)account(c, PROPOSAL)->data;
  TRY(check_reviewer(proposal, key_of(c, VERIFIER)));
  proposal->status = REJECTED;
  proposal->metrics_hash = args->metrics_hash;
  proposal->metrics_irys_id = args->metrics_irys_id;
  EMIT(ProposalRejected, args->id, *key_of(c, VERIFIER), args->metrics_hash, args->metrics_irys_id);
  return slash(c, PROPOSAL, &s);
}

static const Need EXPIRE[] = {
  {"cranker", W | S, 0}, {"proposal", W, 0}, {"project", 0, 0}, {"mint", W, 0}, {"mint_authority", 0, 0},
  {"proposal_escrow", W, 0}, {"project_pool", W, 0}, {"claimable", W, 0}, {"token_program", 0, &TOKEN},
  {"system_program", 0, &SYSTEM}};

static noinline u64 expire(Ctx *c) {
  enum { CRANKER, PROPOSAL };
  const IdArgs *args = (const IdArgs *)c->in.data;
  SlashSeeds s;
  TRY(open_slash(c, PROPOSAL, args->id, &s));
  Proposal *proposal = (Proposal *)account(c, PROPOSAL)->data;
  TRY(check_open(proposal)); /* whatever its lock: a verifier who claims again and again cannot put this off */
  i64 due;
  if (!later(&due, proposal->submitted_at, EXPIRY_WINDOW_SECONDS)) return fail(MathOverflow);
  if (now() < due) return fail(ExpiryNotReached);
  proposal->status = EXPIRED;
  EMIT(ProposalExpired, args->id, *key_of(c, CRANKER));
  return slash(c, PROPOSAL, &s);
}

static const Need CLAIM_REWARD[] = {
  {"claimer", W | S, 0}, {"project", 0, 0}, {"mint", 0, 0}, {"mint_authority", 0, 0}, {"project_pool", W, 0},
  {"claimable", W, 0}, {"claimer_token_account", W, 0}, {"token_program", 0, &TOKEN}};

static noinline u64 claim_reward(Ctx *c) {
  enum { CLAIMER, PROJECT, MINT, AUTHORITY, POOL, CLAIMABLE, TOKENS };
  const IdArgs *args = (const IdArgs *)c->in.data;
  Seeds authority, s;
  TRY(open_market(c, PROJECT, args->id, &authority));
  TRY(open_pool(c, POOL, args->id, PROJECT));
  TRY(find_claimable(c, CLAIMABLE, args->id, key_of(c, CLAIMER), &s));
  TRY(check_kind(c, CLAIMABLE, Claimable_DISC, sizeof(Claimable), NothingToClaim));
  TRY(check_token_account(c, TOKENS, key_of(c, MINT), key_of(c, CLAIMER)));
  Claimable *claimable = (Claimable *)account(c, CLAIMABLE)->data;
  u64 amount = claimable->amount;
  if (!amount) return fail(NothingToClaim);
  claimable->amount = 0;
  TRY(MOVE(c, &authority, TRANSFER, POOL, TOKENS, AUTHORITY, amount));
  EMIT(RewardClaimed, args->id, *key_of(c, CLAIMER), amount);
  return 0;
}

/* ---- dispatch: sha256("global:<name>")[:8], then the arguments ---- */

typedef struct {
  u64 disc;
  Slice log;
  const Need *needs;
  u64 count, args; /* bytes of arguments, ANY where they vary */
  u64 (*run)(Ctx *);
} Instruction;

enum { ANY = 0xffff };
#define INSTRUCTION(disc, name, needs, args, run) {disc, {STR("Instruction: " name)}, needs, LEN(needs), args, run}
static const Instruction INSTRUCTIONS[] = {
  INSTRUCTION(0xed9b980d1f6dafaful, "Initialize", INITIALIZE, 0, initialize),
  INSTRUCTION(0x87ffb543e18748a5ul, "AddVerifier", ADD_VERIFIER, sizeof(KeyArgs), add_verifier),
  INSTRUCTION(0x6fac17e9b78409b3ul, "RemoveVerifier", REMOVE_VERIFIER, sizeof(KeyArgs), remove_verifier),
  INSTRUCTION(0xa137b4e5484ca930ul, "TransferAuthority", TRANSFER_AUTHORITY, sizeof(KeyArgs), transfer_authority),
  INSTRUCTION(0x99fd17597f756e4eul, "RenounceAuthority", TRANSFER_AUTHORITY, 0, renounce_authority),
  INSTRUCTION(0xbe9172dd2ab5db94ul, "CreateProject", CREATE_PROJECT, ANY, create_project),
  INSTRUCTION(0xeaebda01123d0666ul, "Buy", BUY, sizeof(TradeArgs), buy),
  INSTRUCTION(0xad837f01a485e633ul, "Sell", SELL, sizeof(TradeArgs), sell),
  INSTRUCTION(0x30aa7fa2b566a658ul, "Submit", SUBMIT, sizeof(SubmitArgs), submit),
  INSTRUCTION(0x9ca304321a9f28e4ul, "ClaimReview", CLAIM_REVIEW, sizeof(IdArgs), claim_review),
  INSTRUCTION(0xdb3bb7615d9a768aul, "ReleaseReview", RELEASE_REVIEW, sizeof(IdArgs), release_review),
  INSTRUCTION(0x4c61757324d94a45ul, "Approve", APPROVE, sizeof(ApproveArgs), approve),
  INSTRUCTION(0xe06f7283553f0787ul, "Reject", REJECT, sizeof(RejectArgs), reject),
  INSTRUCTION(0x92f7c9393acd53f3ul, "Expire", EXPIRE, sizeof(IdArgs), expire),
  INSTRUCTION(0xa29e5a5ef2b55f95ul, "ClaimReward", CLAIM_REWARD, sizeof(IdArgs), claim_reward),
};

u64 entrypoint(u8 *input) {
  Ctx c;
  parse(input, &c.in);
  if (c.in.len < 8) return fail(InstructionFallbackNotFound);
  u64 disc = rd64(c.in.data);
  c.in.data += 8;
  c.in.len -= 8;
  for (u64 i = 0; i < LEN(INSTRUCTIONS); i++) {
    const Instruction *what = &INSTRUCTIONS[i];
    if (what->disc != disc) continue;
    sol_log_(what->log.ptr, what->log.len);
    if (what->args != ANY && what->args != c.in.len) return fail(InstructionDidNotDeserialize);
    c.needs = what->needs;
    TRY(check_needs(&c, what->count));
    return what->run(&c);
  }
  return fail(InstructionFallbackNotFound);
}
