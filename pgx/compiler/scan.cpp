// A loop over calls of a compiled program, outside of Python: what one call gives the next begins with.
//
// Programs and tensors are torch's, behind its C interface; a program owns the tensor handles that it is given.

#include <cstddef>
#include <vector>

extern "C" {

using Handle = void*;
using Run = int (*)(void*, Handle*, size_t, Handle*, size_t, void*, void*);
using Copy = int (*)(Handle, Handle*);

// program(fixed..., item, state...) -> result, state..., for each item in turn.
// `items` are given away; `state` is replaced by what the last call gave, `results` filled. Returns 0, or an error's code.
int scan(Run run, Copy copy, void* program, Handle* fixed, size_t fixed_count, Handle* items, size_t item_count,
         Handle* state, size_t state_count, Handle* results) {
    std::vector<Handle> in(fixed_count + 1 + state_count), out(1 + state_count);
    for (size_t i = 0; i < item_count; ++i) {
        for (size_t f = 0; f < fixed_count; ++f) {
            if (int error = copy(fixed[f], &in[f])) return error;
        }
        in[fixed_count] = items[i];
        for (size_t s = 0; s < state_count; ++s) in[fixed_count + 1 + s] = state[s];
        if (int error = run(program, in.data(), in.size(), out.data(), out.size(), nullptr, nullptr)) return error;
        results[i] = out[0];
        for (size_t s = 0; s < state_count; ++s) state[s] = out[1 + s];
    }
    return 0;
}
}
