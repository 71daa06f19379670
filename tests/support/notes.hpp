// A visitor that notes every field of a component's state by its path, and can write it back.
#pragma once

#include "base/snapshot.hpp"

#include <map>
#include <string>

namespace exeunt::test {

/// Notes every field with its path; or, given earlier notes, writes them back.
class Notes : public StateVisitor {
public:
    explicit Notes(const Notes* source = nullptr) : source_(source) {}
    void enter(std::string_view name) override { path_ += std::string(name) + "."; }
    void leave() override { path_.erase(path_.rfind('.', path_.size() - 2) + 1); }
    void field(std::string_view name, u64& value, unsigned) override {
        const std::string full = path_ + std::string(name);
        if (source_) value = source_->values.at(full);
        twice |= !values.emplace(full, value).second;
    }
    void bytes(std::string_view, std::span<u8>) override {}
    void buffer(std::string_view, std::vector<u8>&) override {}

    std::map<std::string, u64> values;
    bool twice = false;

private:
    const Notes* source_;
    std::string path_;
};

} // namespace exeunt::test
