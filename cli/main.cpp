// `exeunt`: parses the command line and says in one line what was wrong with it.
#include "cli/command.hpp"
#include "base/bad_input.hpp"

#include <cstdio>
#include <fmt/format.h>
#include <new>
#include <string>
#include <vector>

namespace {

constexpr const char* version = "exeunt 0.1.0";
constexpr int status_bad_input = 2;

constexpr const char* footer = R"(Exit status:
  0   the machine powered off, or the user quit, or the verb succeeded
  2   bad input: an option, a file
  4   the guest asked for something that exeunt does not model
  6   an invariant of exeunt broke: please report it
  8   the run was ended from outside: tick limit, SIGINT, SIGTERM
  10  a triple fault outside a guest, or nothing can ever happen again
  12  a replay or a comparison found a difference, or a check a violated rule
  odd the guest's own, through isa-debug-exit (port 0xF4): value * 2 + 1)";

/// What was wrong with the command line, and where the right form stands.
std::string mistake(const CLI::App& app, const CLI::ParseError& error) {
    const CLI::App* verb = &app;
    std::string name = app.get_name();
    for (auto parsed = verb->get_subcommands(); !parsed.empty(); parsed = verb->get_subcommands()) {
        verb = parsed.front();
        name += ' ' + verb->get_name();
    }
    std::string text = error.what();
    const std::vector<std::string> extra = verb->remaining();
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError) && !extra.empty())
        text = fmt::format("{}: not expected", extra.front());
    return fmt::format("{} (see {} --help)", text, name);
}

int parse(CLI::App& app, const exeunt::Session& session, int argc, char** argv) {
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
        fmt::print(stderr, "exeunt: {}\n", mistake(app, error));
        return status_bad_input;
    }
    return session.status;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"An x86 machine with VT-x and AMD-V in software: run a hypervisor, record and replay its VM exits.",
                 "exeunt"};
    app.set_version_flag("--version", version);
    app.require_subcommand(1);
    app.footer(footer);
    exeunt::Session session;
    exeunt::add_run(app, session);
    exeunt::add_replay(app, session);
    exeunt::add_trace(app, session);
    exeunt::add_explain(app, session);
    exeunt::add_check(app, session);
    exeunt::add_cpu(app, session);
    try {
        return parse(app, session, argc, argv);
    } catch (const exeunt::BadInput& error) {
        fmt::print(stderr, "exeunt: {}\n", error.what());
    } catch (const std::bad_alloc&) {
        fmt::print(stderr, "exeunt: not enough native memory\n");
    }
    return status_bad_input;
}
