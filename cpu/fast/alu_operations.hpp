// The operations of cpu/fast/alu.cpp and fused.cpp as types, so that handlers can be instantiated from them.
#pragma once

#include "cpu/alu.hpp"

namespace exeunt::fast {

// An operation of two operands: `apply` gives the result; `writes` says whether the destination takes it.
#define BINARY(name, function, write)                             \
    struct name {                                                 \
        static constexpr bool writes = write;                     \
        template <class T>                                        \
        [[gnu::always_inline]] static T apply(Flags& f, T a, T b) { \
            function                                              \
        }                                                         \
    };
BINARY(Add, return alu::add(f, a, b);, true)
BINARY(Or, return alu::or_(f, a, b);, true)
BINARY(Adc, return alu::adc(f, a, b);, true)
BINARY(Sbb, return alu::sbb(f, a, b);, true)
BINARY(And, return alu::and_(f, a, b);, true)
BINARY(Sub, return alu::sub(f, a, b);, true)
BINARY(Xor, return alu::xor_(f, a, b);, true)
BINARY(Cmp, alu::cmp(f, a, b); return a;, false)
BINARY(Test, alu::test(f, a, b); return a;, false)
#undef BINARY

// An operation of one operand.
#define UNARY(name, expression)                                 \
    struct name {                                               \
        template <class T>                                      \
        [[gnu::always_inline]] static T apply(Flags& f, T a) {  \
            static_cast<void>(f);                               \
            return expression;                                  \
        }                                                       \
    };
UNARY(Inc, alu::inc(f, a))
UNARY(Dec, alu::dec(f, a))
UNARY(Neg, alu::neg(f, a))
UNARY(Not, alu::not_(a))
#undef UNARY

}  // namespace exeunt::fast
