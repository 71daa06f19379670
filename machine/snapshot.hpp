// The machine's state as one number and as text. Both are visitors of the same fields (base/snapshot.hpp); the
// same state gives the same result on every native machine, whichever pages of RAM happen to be allocated there.
//
// Not modelled: saving and restoring.
#pragma once

#include "base/snapshot.hpp"

#include <memory>
#include <string>

namespace exeunt {

class Machine;

/// XXH3 with 128 bits over every field's name, width and value. Pages of zeros count as absent, so that RAM costs
/// what has been touched of it.
class StateHash final : public StateVisitor {
public:
    StateHash();
    ~StateHash() override;
    void enter(std::string_view name) override;
    void leave() override;
    void field(std::string_view name, u64& value, unsigned bits) override;
    void bytes(std::string_view name, std::span<u8> data) override;
    void buffer(std::string_view name, std::vector<u8>& data) override;

    /// 32 hexadecimal digits; the visitor must not be used again.
    std::string digest();

private:
    void feed(const void* data, std::size_t size);
    void feed_number(u64 value);
    void feed_name(char kind, std::string_view name);
    void feed_pages(std::span<const u8> data);

    struct State;
    std::unique_ptr<State> state_;
};

/// Fields as JSON: groups are objects, numbers are numbers, bytes are hexadecimal digits or, when there are many,
/// size and hash.
class StateJson final : public StateVisitor {
public:
    StateJson();
    ~StateJson() override;
    void enter(std::string_view name) override;
    void leave() override;
    void field(std::string_view name, u64& value, unsigned bits) override;
    void bytes(std::string_view name, std::span<u8> data) override;
    void buffer(std::string_view name, std::vector<u8>& data) override;

    std::string text() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

std::string state_hash(Machine& machine);
std::string state_json(Machine& machine);

}  // namespace exeunt
