// One visitor names every field of a component's state. Save, restore, hash, JSON dump and diff are visitors;
// no component has a second list of its fields.
#pragma once

#include "base/types.hpp"

#include <concepts>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace exeunt {

class StateVisitor {
public:
    virtual ~StateVisitor() = default;

    /// Opens and closes a named group of fields.
    virtual void enter(std::string_view name) = 0;
    virtual void leave() = 0;
    /// One field of 1 to 64 bits, zero-extended. A restoring visitor writes to `value`.
    virtual void field(std::string_view name, u64& value, unsigned bits) = 0;
    /// A run of bytes whose length is fixed by the component.
    virtual void bytes(std::string_view name, std::span<u8> data) = 0;
    /// A run of bytes whose length is itself state.
    virtual void buffer(std::string_view name, std::vector<u8>& data) = 0;

    template <class T>
        requires std::is_integral_v<T> || std::is_enum_v<T>
    void value(std::string_view name, T& v) {
        u64 wide = to_wide(v);
        field(name, wide, std::is_same_v<T, bool> ? 1 : unsigned{8 * sizeof(T)});
        v = static_cast<T>(wide);
    }
    template <class T, std::size_t N>
    void array(std::string_view name, T (&values)[N]) {
        enter(name);
        for (std::size_t i = 0; i < N; ++i) value(std::to_string(i), values[i]);
        leave();
    }

private:
    template <class T>
    static u64 to_wide(T v) {
        if constexpr (std::is_same_v<T, bool>) {
            return v ? 1 : 0;
        } else if constexpr (std::is_enum_v<T>) {
            return to_wide(static_cast<std::underlying_type_t<T>>(v));
        } else {
            return static_cast<u64>(static_cast<std::make_unsigned_t<T>>(v));
        }
    }
};

}  // namespace exeunt
