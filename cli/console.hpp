// The user's end of the serial line: standard input (a raw terminal, or a file or pipe) and standard output.
#pragma once

#include "base/input.hpp"

#include <cstdio>
#include <string>

namespace exeunt {

/// Signals that end a run in good order. Between construction and destruction they only set a flag.
class StopSignals {
public:
    StopSignals();
    ~StopSignals();
    StopSignals(const StopSignals&) = delete;
    StopSignals& operator=(const StopSignals&) = delete;
    /// The number of the signal that came, or 0.
    static int received();
};

/// Standard input as the serial line's. On a terminal it is raw: every key goes to the guest, but for Ctrl-A,
/// which is a prefix: x quits, Ctrl-A sends Ctrl-A, h prints help.
class Console final : public InputSource {
public:
    Console();
    ~Console() override;
    Console(const Console&) = delete;
    Console& operator=(const Console&) = delete;

    bool open() const override { return open_; }
    std::vector<u8> take(Tick now, std::size_t room) override;
    Tick wait(Tick from, Tick to) override;

    bool quit_requested() const { return quit_; }
    /// The guest has written something: it is not idle at a prompt.
    void note_output() { active_ = true; }

private:
    bool readable() const;
    void receive(std::size_t room);
    void key(u8 byte);

    bool terminal_ = false;
    bool open_ = true;
    bool quit_ = false;
    bool prefix_ = false;   ///< Ctrl-A was the last key
    bool active_ = true;
    Tick last_active_ = 0;
    std::vector<u8> pending_;  ///< read, and not yet taken
    unsigned asked_ = 0;
};

/// Bytes on their way to a file descriptor, written in pieces.
class SerialOutput {
public:
    /// Standard output.
    SerialOutput();
    /// A new file. Throws BadInput.
    explicit SerialOutput(const std::string& path);
    ~SerialOutput();
    SerialOutput(const SerialOutput&) = delete;
    SerialOutput& operator=(const SerialOutput&) = delete;

    void put(u8 byte) { buffer_.push_back(static_cast<char>(byte)); }
    bool waiting() const { return !buffer_.empty(); }
    /// False when nobody reads any more, or the medium is full.
    bool flush();

private:
    int descriptor_;
    bool owned_ = false;
    std::string buffer_;
};

}  // namespace exeunt
