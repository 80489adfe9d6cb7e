/* Solana's virtual machine for C: types, system calls, the serialized input, checked arithmetic.
 *
 * The compiler's limits here: at most 5 arguments a function, frames of 4096 bytes, no floats, no signed
 * division, no 128-bit multiply or divide, no call that it would make to memcpy or memset itself. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;
typedef _Bool bool;

#define NULL ((void *)0)
#define LEN(a) (sizeof(a) / sizeof((a)[0]))
#define STR(text) (const u8 *)(text), sizeof(text) - 1 /* two arguments: where it is and how long */
#define PACKED __attribute__((packed))
#define noinline __attribute__((noinline))
#define unused __attribute__((unused)) /* of what a program may leave out */
#define inl static inline __attribute__((always_inline))
/* Hand an error on; everything that can fail returns 0 or the error's code. */
#define TRY(x) do { u64 error_ = (x); if (error_) return error_; } while (0)

_Static_assert(sizeof(u64) == 8 && sizeof(void *) == 8, "LP64");

typedef struct { u8 b[32]; } Pubkey;
typedef Pubkey Hash;
typedef struct { const u8 *ptr; u64 len; } Slice;

/* ---- what sol_invoke_signed_c takes, laid out as the runtime reads it ---- */

typedef struct { const Pubkey *key; bool writable, signer; } Meta;
typedef struct { const Pubkey *program; const Meta *metas; u64 nmetas; const u8 *data; u64 len; } Call;
typedef struct { const Slice *seeds; u64 n; } Signer;
typedef struct {
  const Pubkey *key;
  u64 *lamports;
  u64 len; /* as the transaction found it: a call that creates the account leaves it stale, see data_len() */
  u8 *data;
  const Pubkey *owner;
  u64 rent_epoch;
  bool signer, writable, executable;
} Account;

/* ---- system calls ---- */

typedef struct { u64 slot; i64 epoch_start; u64 epoch, leader_epoch; i64 unix_timestamp; } Clock;
typedef struct { u64 per_byte; u64 threshold_f64; u8 burn; } Rent;

void sol_log_(const u8 *, u64);
void sol_log_data(const Slice *, u64);
u64 sol_memcpy_(void *, const void *, u64);
u64 sol_memset_(void *, u8, u64);
u64 sol_try_find_program_address(const Slice *, u64, const Pubkey *, Pubkey *, u8 *);
u64 sol_invoke_signed_c(const Call *, const Account *, int, const Signer *, int);
u64 sol_get_clock_sysvar(void *);
u64 sol_get_rent_sysvar(void *);

/* ---- little-endian numbers at any address ---- */

inl u64 rd64(const void *p) { u64 v; __builtin_memcpy(&v, p, 8); return v; }
inl u32 rd32(const void *p) { u32 v; __builtin_memcpy(&v, p, 4); return v; }
inl void wr64(void *p, u64 v) { __builtin_memcpy(p, &v, 8); }
inl void wr32(void *p, u32 v) { __builtin_memcpy(p, &v, 4); }
inl bool key_eq(const Pubkey *a, const Pubkey *b) {
  return !((rd64(a->b) ^ rd64(b->b)) | (rd64(a->b + 8) ^ rd64(b->b + 8)) |
           (rd64(a->b + 16) ^ rd64(b->b + 16)) | (rd64(a->b + 24) ^ rd64(b->b + 24)));
}

/* ---- the serialized input ---- */

enum { MAX_ACCOUNTS = 16 }; /* what follows is passed over, as Anchor does with "remaining accounts" */

typedef struct {
  Account acc[MAX_ACCOUNTS];
  u64 n;
  const u8 *data;
  u64 len;
  const Pubkey *program;
} Input;

unused static void parse(u8 *p, Input *in) {
  u64 n = rd64(p);
  in->n = n < MAX_ACCOUNTS ? n : MAX_ACCOUNTS;
  p += 8;
  for (u64 i = 0; i < n; i++) {
    if (*p != 0xff) { /* the same account as an earlier one, which is below MAX_ACCOUNTS if i is */
      if (i < MAX_ACCOUNTS) in->acc[i] = in->acc[*p];
      p += 8;
      continue;
    }
    u64 len = rd64(p + 80);
    if (i < MAX_ACCOUNTS) {
      Account *a = &in->acc[i];
      a->signer = p[1];
      a->writable = p[2];
      a->executable = p[3];
      a->key = (const Pubkey *)(p + 8);
      a->owner = (const Pubkey *)(p + 40);
      a->lamports = (u64 *)(p + 72);
      a->len = len;
      a->data = p + 88;
    }
    p += (88 + len + 10240 + 7) & ~7ul; /* 10,240 bytes are room to grow */
    if (i < MAX_ACCOUNTS) in->acc[i].rent_epoch = rd64(p);
    p += 8;
  }
  in->len = rd64(p);
  in->data = p + 8;
  in->program = (const Pubkey *)(p + 8 + in->len);
}

/* Bytes of data now: the runtime keeps this copy up to date across calls. */
inl u64 data_len(const Account *a) { return rd64(a->data - 8); }

/* ---- checked arithmetic: true where the result fits 64 bits ---- */

inl bool add64(u64 *out, u64 a, u64 b) { *out = a + b; return *out >= a; }

unused static noinline bool mul64(u64 *out, u64 a, u64 b) {
  u64 al = (u32)a, ah = a >> 32, bl = (u32)b, bh = b >> 32;
  u64 ll = al * bl, lh = al * bh, hl = ah * bl;
  u64 middle = (ll >> 32) + (u32)lh + (u32)hl;
  u64 high = ah * bh + (lh >> 32) + (hl >> 32) + (middle >> 32);
  *out = middle << 32 | (u32)ll;
  return !high;
}
