/* capture.h - what the files of capture share: the plans of a captured function, the key that tells calls apart, and the arrangement in
 * which results are given back. */
#ifndef LBP_CAPTURE_H
#define LBP_CAPTURE_H

#include "lbp.h"

enum { LBP_MAX_PLANS = 64, LBP_MAX_TENSORS = 64, LBP_MAX_KEY = 4096, LBP_MAX_ARGUMENTS = 32, LBP_MAX_FIELDS = 64, LBP_DEEPEST = 8 };

/* Everything the steps of a call may depend on, as bytes: dtype and shape of each tensor, its strides where it has gaps, the value of
 * everything else, the modes of the context. */
typedef struct lbp_key {
    size_t size;
    int n_tensors, n_arguments;
    const char *trouble;             /* what made it impossible, or NULL */
    int ends[LBP_MAX_ARGUMENTS];     /* where each argument ends in the bytes */
    lbp_box *boxes[LBP_MAX_TENSORS]; /* the tensors in the order met: good until garbage may be collected */
    char bytes[LBP_MAX_KEY];
} lbp_key;

/* The arguments are first..last of the stack. Allocates nothing in Lua, so no finalizer runs meanwhile. */
void lbp_read_key(lua_State *L, const lbp_state *s, int first, int last, lbp_key *key);

/* The key's first byte: the modes of the context. */
char lbp_modes(const lbp_state *s);

/* Orders names, for qsort: the order of a table's fields in the key. */
int lbp_by_text(const void *a, const void *b);
/* Puts what a recording takes in the place of the arguments first..last (see capture_arguments.c). */
void lbp_disguise_arguments(lua_State *L, lbp_state *s, int first, int last);

/* Pushes the arrangement of the n values from stack index `first` on: the values themselves with tensors replaced by marks. The tensors'
 * boxes go to boxes[LBP_MAX_TENSORS] and stay alive through a list that is pushed below the arrangement. Returns their number. */
int lbp_push_arrangement(lua_State *L, int first, int n, lbp_box **boxes);
/* Pushes the values that the arrangement at idx stands for, given that the tensors' boxes begin at stack index `first`. Returns their
 * number. */
int lbp_push_arranged(lua_State *L, int idx, int first);
/* The tensors (borrowed) at the places of the value at index `value` that stand for results, by their numbers: the value is arranged as the
 * results, except that one value alone stands for a list of one; arrangement 0: it is the one tensor. Raises where one does not look like
 * looks[number]. Allocates nothing in Lua. */
void lbp_match_arranged(lua_State *L, int arrangement, int value, const bp_meta *const *looks, bp_tensor **tensors);

/* One plan and how to give back its results. */
typedef struct lbp_entry {
    lbp_held *owner; /* of the plan */
    uint64_t generation;
    int n_in, n_out, n_arguments;
    bool single;                 /* the result is one tensor and nothing else: no arrangement is looked at */
    bool plain;                  /* the arguments are tensors without gaps or history, and nothing else */
    int ends[LBP_MAX_ARGUMENTS]; /* of each argument in the key */
    size_t size;
    char key[];
} lbp_entry;

/* A captured function. */
typedef struct lbp_captured {
    const void *tag; /* told from other userdata without a table lookup */
    lbp_state *state;
    int n, latest, n_hooks;
    uint64_t dropped; /* counts how often entries went */
    lbp_entry *entries[LBP_MAX_PLANS];
} lbp_captured;

/* The first argument, of the method of that name; raises for anything else. */
lbp_captured *lbp_check_captured(lua_State *L, const char *method);
/* NULL: it was released. */
bp_plan *lbp_plan_of(const lbp_entry *e);
/* Whether the plan can still be replayed. */
bool lbp_usable(const lbp_entry *e, const lbp_state *s);

/* Methods (capture_report.c). */
int lbp_captured_plans(lua_State *L);
int lbp_captured_time(lua_State *L);

#endif
