// What an instruction did not finish because of, and Result<T>: a value or such a Stop.
#pragma once

#include "arch/vectors.hpp"
#include "base/types.hpp"

#include <utility>

namespace exeunt {

/// Why an instruction ended before it completed. 16 bytes, returned in registers.
struct Stop {
    enum class Kind : u8 {
        none,          ///< It did not: the instruction goes on.
        exception,     ///< An exception is to be delivered; `vector`, `has_error`, `error`, `address`.
        second_level,  ///< EPT or nested paging refused; the reason is in Mmu::second_level_fault().
        world_switch,  ///< A VM entry or exit replaced the state; nothing more to do.
        retry,         ///< Nothing happened yet: execute the same instruction again (as a block of its own).
        unmodelled,    ///< exeunt does not model what was asked; Cpu::unmodelled() says what.
    };
    Kind kind = Kind::none;
    Vector vector = Vector::DE;
    bool has_error = false;
    u32 error = 0;
    /// #PF: the linear address. #DB: the bits to merge into DR6.
    u64 address = 0;

    constexpr bool operator==(const Stop&) const = default;
};

constexpr Stop exception(Vector vector) { return {Stop::Kind::exception, vector, false, 0, 0}; }
constexpr Stop exception(Vector vector, u32 error) { return {Stop::Kind::exception, vector, true, error, 0}; }
constexpr Stop page_fault(u32 error, u64 linear) { return {Stop::Kind::exception, Vector::PF, true, error, linear}; }
constexpr Stop debug_exception(u64 dr6_bits) { return {Stop::Kind::exception, Vector::DB, false, 0, dr6_bits}; }
constexpr Stop undefined_opcode() { return exception(Vector::UD); }
constexpr Stop general_protection(u32 error = 0) { return exception(Vector::GP, error); }
constexpr Stop stopped(Stop::Kind kind) { return {kind, Vector::DE, false, 0, 0}; }

template <class T = void>
class [[nodiscard]] Result {
public:
    constexpr Result(T value) : value_(std::move(value)) {}
    constexpr Result(Stop stop) : stop_(stop) {}
    constexpr bool ok() const { return stop_.kind == Stop::Kind::none; }
    constexpr const Stop& stop() const { return stop_; }
    constexpr T& value() { return value_; }
    constexpr const T& value() const { return value_; }

private:
    Stop stop_{};
    T value_{};
};

template <>
class [[nodiscard]] Result<void> {
public:
    constexpr Result() = default;
    constexpr Result(Stop stop) : stop_(stop) {}
    constexpr bool ok() const { return stop_.kind == Stop::Kind::none; }
    constexpr const Stop& stop() const { return stop_; }

private:
    Stop stop_{};
};

}  // namespace exeunt

/// `const u64 v = TRY(read(...));` gives the value, or returns the Stop from the enclosing function.
#define TRY(expression) EXEUNT_TRY(expression, __COUNTER__)
#define EXEUNT_TRY(expression, unique) EXEUNT_TRY_NAMED(expression, unique)
#define EXEUNT_TRY_NAMED(expression, unique) EXEUNT_TRY_AS(expression, try_result_##unique)
#define EXEUNT_TRY_AS(expression, name)                 \
    __extension__({                                     \
        auto&& name = (expression);                     \
        if (!name.ok()) [[unlikely]]                    \
            return name.stop();                         \
        ::exeunt::detail::take(std::move(name));        \
    })

namespace exeunt::detail {
template <class T>
constexpr T take(Result<T>&& result) {
    return std::move(result.value());
}
constexpr void take(Result<void>&&) {}
}  // namespace exeunt::detail
