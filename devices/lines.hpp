// How interrupt lines are joined: one source to several inputs, several sources to one input.
//
// Wiring: an ISA interrupt n is a SplitLine to pin n of the 8259 pair and pin n of the I/O APIC (0 goes to
// pin 2); where devices share an input, each gets its own SharedLine::input().
#pragma once

#include "base/bus.hpp"

#include <deque>
#include <vector>

namespace exeunt {

/// Drives every line that was added.
class SplitLine final : public InterruptLine {
public:
    SplitLine() = default;
    explicit SplitLine(std::vector<InterruptLine*> targets) : targets_(std::move(targets)) {}
    void add(InterruptLine& target) { targets_.push_back(&target); }
    void set(bool level) override {
        for (InterruptLine* target : targets_) target->set(level);
    }

private:
    std::vector<InterruptLine*> targets_;
};

/// Asserted while any of its inputs is.
class SharedLine final : public Device {
public:
    explicit SharedLine(InterruptLine& output) : output_(&output) {}
    SharedLine(const SharedLine&) = delete;
    SharedLine& operator=(const SharedLine&) = delete;

    /// A new input; valid as long as this.
    InterruptLine& input() { return inputs_.emplace_back(*this); }
    void reset() override {
        for (Input& input : inputs_) input.level = false;
        output_->set(false);
    }
    void visit(StateVisitor& visitor) override {
        std::size_t number = 0;
        for (Input& input : inputs_) visitor.value(std::to_string(number++), input.level);
    }

private:
    struct Input final : InterruptLine {
        explicit Input(SharedLine& shared) : line(shared) {}
        void set(bool value) override {
            level = value;
            line.update();
        }
        SharedLine& line;
        bool level = false;
    };
    void update() {
        bool any = false;
        for (const Input& input : inputs_) any = any || input.level;
        output_->set(any);
    }

    InterruptLine* output_;
    std::deque<Input> inputs_;
};

/// A line that nothing is connected to.
class OpenLine final : public InterruptLine {
public:
    void set(bool) override {}
};

} // namespace exeunt
