#include "cpu/x87_native.hpp"

namespace exeunt::x87_native {

namespace {

#if defined(__x86_64__)

/// 1 / 3 and its square root: an emulated unit with fewer bits, or a control word that is not the usual one,
/// shows.
bool works() {
    u16 control = 0;
    asm volatile("fnstcw %0" : "=m"(control));
    if (control != default_control) return false;
    const X87Register numerator = softfloat80::one, divisor = softfloat80::from_integer(3);
    softfloat80::Environment e;
    const X87Register expected = softfloat80::square_root(softfloat80::divide(numerator, divisor, e), e);
    X87Register third, root;
    store(compute<Operation::divide>(numerator, divisor).value, third);
    store(compute<Operation::square_root>(third, third).value, root);
    return root.significand == expected.significand && root.sign_exponent == expected.sign_exponent;
}

#else

bool works() { return false; }

#endif

} // namespace

bool enabled = works();

} // namespace exeunt::x87_native
