// The verbs of `exeunt`: each file of this folder adds its own to the command line.
#pragma once

#include <CLI/CLI.hpp>

namespace exeunt {

/// What a verb shares with main(): its status becomes the status of `exeunt` (docs/exit-status.md).
struct Session {
    int status = 0;
};

void add_run(CLI::App& app, Session& session);
void add_replay(CLI::App& app, Session& session);
void add_trace(CLI::App& app, Session& session);
void add_cpu(CLI::App& app, Session& session);
void add_explain(CLI::App& app, Session& session);
void add_check(CLI::App& app, Session& session);
/// `show`, below `trace`.
void add_trace_show(CLI::App& trace, Session& session);

}  // namespace exeunt
