#include "cli/console.hpp"

#include "base/bad_input.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>
#include <utility>

namespace exeunt {

namespace {

constexpr u8 ctrl_a = 1;
constexpr std::size_t piece = 256;  ///< bytes read at once
/// How many ends of slices pass between two looks at standard input: a system call costs as much as a slice.
constexpr unsigned slices_per_look = 8;
/// While the guest has been idle for less than this, waiting takes no native time; later, when somebody seems to
/// sit at a prompt, virtual time passes no faster than native time.
constexpr Tick idle_before_pacing = 2 * ticks_per_second;

constexpr int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};
constexpr int fatal_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

// Signal handlers and atexit() can reach nothing else.
volatile std::sig_atomic_t stop_signal = 0;
termios cooked_mode{};
volatile std::sig_atomic_t terminal_is_raw = 0;

void stop_handler(int number) {
    // Who asks twice does not want to wait for good order.
    if (stop_signal != 0) {
        if (terminal_is_raw) tcsetattr(STDIN_FILENO, TCSANOW, &cooked_mode);
        _exit(8);
    }
    stop_signal = number;
}

void restore_terminal() {
    if (terminal_is_raw) tcsetattr(STDIN_FILENO, TCSANOW, &cooked_mode);
    terminal_is_raw = 0;
}

void fatal_handler(int number) {
    restore_terminal();
    std::raise(number);  // SA_RESETHAND: the default action
}

void make_raw() {
    if (tcgetattr(STDIN_FILENO, &cooked_mode) != 0) return;
    termios raw = cooked_mode;
    raw.c_iflag &= ~static_cast<tcflag_t>(BRKINT | ICRNL | INLCR | IGNCR | INPCK | ISTRIP | IXON);
    raw.c_lflag &= ~static_cast<tcflag_t>(ECHO | ICANON | IEXTEN | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) != 0) return;
    terminal_is_raw = 1;
    std::atexit(restore_terminal);
    struct sigaction action {};
    action.sa_handler = fatal_handler;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    for (const int number : fatal_signals) sigaction(number, &action, nullptr);
}

}  // namespace

StopSignals::StopSignals() {
    stop_signal = 0;
    struct sigaction action {};
    action.sa_handler = stop_handler;  // no SA_RESTART: poll() returns
    for (const int number : stop_signals) sigaction(number, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
}

StopSignals::~StopSignals() {
    for (const int number : stop_signals) std::signal(number, SIG_DFL);
}

int StopSignals::received() { return stop_signal; }

Console::Console() : terminal_(isatty(STDIN_FILENO) != 0) {
    if (terminal_) make_raw();
}

Console::~Console() { restore_terminal(); }

bool Console::readable() const {
    pollfd descriptor{STDIN_FILENO, POLLIN, 0};
    return poll(&descriptor, 1, 0) > 0;
}

std::vector<u8> Console::take(Tick now, std::size_t room) {
    if (pending_.empty() && open_ && asked_++ % slices_per_look == 0 && readable()) receive(room);
    if (!pending_.empty()) last_active_ = now;
    return std::exchange(pending_, {});
}

/// Reads what there is into `pending_`; may find the end.
void Console::receive(std::size_t room) {
    std::vector<u8> bytes(room);
    const ssize_t got = read(STDIN_FILENO, bytes.data(), bytes.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (got <= 0) {
        open_ = false;
        return;
    }
    bytes.resize(static_cast<std::size_t>(got));
    if (terminal_) {
        for (const u8 byte : bytes) key(byte);
    } else {
        pending_ = std::move(bytes);
    }
}

void Console::key(u8 byte) {
    if (!prefix_) {
        prefix_ = byte == ctrl_a;
        if (!prefix_) pending_.push_back(byte);
        return;
    }
    prefix_ = false;
    switch (byte) {
        case 'x': quit_ = true; break;
        case 'h': fmt::print(stderr, "\r\nCtrl-A x quits, Ctrl-A Ctrl-A sends Ctrl-A, Ctrl-A h prints this\r\n"); break;
        case ctrl_a: pending_.push_back(ctrl_a); break;
        default: pending_.push_back(ctrl_a); pending_.push_back(byte); break;
    }
}

Tick Console::wait(Tick from, Tick to) {
    if (active_) last_active_ = from;
    active_ = false;
    asked_ = 0;
    if (!open_) return to;
    const bool forever = to == never;
    if (!forever && (!terminal_ || from - last_active_ < idle_before_pacing)) return to;
    using NativeClock = std::chrono::steady_clock;
    const auto start = NativeClock::now();
    timespec timeout{};
    if (!forever) {
        timeout.tv_sec = static_cast<time_t>((to - from) / ticks_per_second);
        timeout.tv_nsec = static_cast<long>((to - from) % ticks_per_second);
    }
    pollfd descriptor{STDIN_FILENO, POLLIN, 0};
    do {
        if (ppoll(&descriptor, 1, forever ? nullptr : &timeout, nullptr) <= 0) return to;  // time is up, or a signal
        receive(piece);
    } while (forever && open_ && !quit_ && pending_.empty());
    // Native time moves virtual time only where input comes with it: that moment is in the log, this one is not.
    if (pending_.empty()) return to;
    const auto passed = std::chrono::duration_cast<std::chrono::nanoseconds>(NativeClock::now() - start).count();
    return std::min(from + std::max<Tick>(static_cast<Tick>(std::max<i64>(passed, 0)), 1), forever ? never - 1 : to);
}

SerialOutput::SerialOutput() : descriptor_(STDOUT_FILENO) {}

SerialOutput::SerialOutput(const std::string& path)
    : descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)), owned_(true) {
    if (descriptor_ < 0) throw BadInput("--serial", path, fmt::format("a writable file ({})", std::strerror(errno)));
}

SerialOutput::~SerialOutput() {
    flush();
    if (owned_) close(descriptor_);
}

bool SerialOutput::flush() {
    std::size_t done = 0;
    while (done < buffer_.size()) {
        const ssize_t wrote = write(descriptor_, buffer_.data() + done, buffer_.size() - done);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) {
            buffer_.clear();
            return false;
        }
        done += static_cast<std::size_t>(wrote);
    }
    buffer_.clear();
    return true;
}

}  // namespace exeunt
