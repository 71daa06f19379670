// Random instructions out of Forms, and random states in which they do something.
#pragma once

#include "tests/differential/forms.hpp"

namespace exeunt::test {

class Generator {
public:
    Generator(const Forms& forms, u64 seed) : forms_(forms), random_(seed) {}

    /// A case of any row, or of this one.
    Case next(const RowForms& row);
    Case next() { return next(forms_.rows()[below(forms_.rows().size())]); }
    /// The same instruction again in another state.
    void restate(Case& c);

    u64 below(u64 limit) { return random_.next() % limit; }
    bool chance(unsigned percent) { return below(100) < percent; }
    u64 interesting();
    bool instruction(const RowForms& row, Case& c);
    void registers(Case& c);
    u64 address_in_data();

private:
    void write_modrm(const Form& form, u8* bytes, unsigned& n);
    void aim(Case& c);
    void aim_gather(Case& c);
    void aim_strings(Case& c);
    void aim_stack(Case& c);
    void vectors(Registers& r);
    void x87(Case& c);
    u64 operand_address(bool wide);
    u64 single();
    u64 vector_quadword();
    X87Register extended();

    const Forms& forms_;
    Random random_;
};

/// Flags that the manual leaves undefined after this instruction in this state (undefined_flags.inc).
u64 undefined_flags(const Case& c);
/// Whether the manual leaves the result itself undefined.
bool undefined_result(const Case& c);

}  // namespace exeunt::test
