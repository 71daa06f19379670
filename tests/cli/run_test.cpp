// `exeunt run` as a user has it: statuses, one line for each error, serial output.
#include "tests/machine/images.hpp"
#include "tests/machine/programs.hpp"
#include "tests/machine/temporary_file.hpp"

#include <algorithm>
#include <cstdio>
#include <doctest/doctest.h>
#include <string>
#include <sys/wait.h>

using namespace exeunt;
using namespace exeunt::test;
using namespace exeunt::test::programs;

namespace {

struct Outcome {
    int status = -1;
    std::string out, err;
};

/// Runs the executable; `arguments` is shell text.
Outcome exeunt_with(const std::string& arguments, const std::string& input = "/dev/null") {
    const TemporaryFile err;
    const std::string command =
        std::string(EXEUNT_BINARY_DIR "/exeunt ") + arguments + " <" + input + " 2>" + err.path;
    Outcome outcome;
    std::FILE* pipe = popen(command.c_str(), "r");
    REQUIRE(pipe != nullptr);
    char buffer[4096];
    while (const std::size_t got = std::fread(buffer, 1, sizeof buffer, pipe)) outcome.out.append(buffer, got);
    const int status = pclose(pipe);
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    outcome.err = err.text();
    return outcome;
}

Outcome run_program(const Bytes& program, const std::string& arguments = "", const std::string& input = "/dev/null") {
    const TemporaryFile kernel(multiboot_flat(program));
    return exeunt_with("run --memory 16M --kernel " + kernel.path + " " + arguments, input);
}

bool one_line(const std::string& text) {
    return text.starts_with("exeunt: ") && std::count(text.begin(), text.end(), '\n') == 1 && text.back() == '\n';
}

}  // namespace

TEST_CASE("exit status: the guest's through isa-debug-exit, exeunt's own as documented") {
    CHECK(run_program(exit_with(0)).status == 1);
    CHECK(run_program(exit_with(0x2A)).status == 0x55);
    CHECK(run_program(power_off).status == 0);
    const Outcome limit = run_program(spin, "--limit 100000");
    CHECK(limit.status == 8);
    CHECK(limit.err == "exeunt: the limit of 100000 ticks was reached\n");
    const Outcome fault = run_program(breakpoint);
    CHECK(fault.status == 10);
    CHECK(one_line(fault.err));
    const Outcome hung = run_program(wait_for_ever);
    CHECK(hung.status == 10);
    CHECK(one_line(hung.err));
    const Outcome unmodelled = run_program(close_a20 + spin, "--limit 1000");
    CHECK(unmodelled.status == 4);
    CHECK(one_line(unmodelled.err));
}

TEST_CASE("bad input: one line that names what and where, status 2, and no machine") {
    const TemporaryFile empty, kernel(multiboot_flat(exit_with(0)));
    const std::string good = "run --kernel " + kernel.path + " ";
    for (const std::string& arguments :
         {std::string("run --kernel /no/such/file"), "run --kernel " + empty.path, std::string("run"),
          std::string("fly"), std::string(""), good + "--memory 1T", good + "--memory 1M", good + "--cpus 0",
          good + "--cpus x", good + "--cpu no-such-model", good + "--serial tape", good + "--serial file:/no/such/dir/f",
          good + "--limit x", good + "--drive /no/such/file", good + "--drive " + empty.path,
          good + "--initrd /no/such/file", good + "--no-such-option"}) {
        CAPTURE(arguments);
        const Outcome outcome = exeunt_with(arguments);
        CHECK(outcome.status == 2);
        CHECK(one_line(outcome.err));
        CHECK(outcome.out == "");
    }
    CHECK(exeunt_with("run --kernel /no/such/file").err ==
          "exeunt: /no/such/file: expected a readable file (No such file or directory)\n");
}

TEST_CASE("--serial: stdio, a file, or nowhere") {
    const Bytes program = print('h') + print('i') + print('\n') + exit_with(0);
    CHECK(run_program(program).out == "hi\n");
    CHECK(run_program(program, "--serial none").out == "");
    const TemporaryFile file;
    CHECK(run_program(program, "--serial file:" + file.path).out == "");
    CHECK(file.text() == "hi\n");
}

TEST_CASE("--serial stdio: standard input reaches the guest, and its end is no error") {
    const TemporaryFile input;
    input.write("ok");
    CHECK(run_program(echo + echo + exit_with(0), "--limit 100000000", input.path).out == "ok");
    CHECK(run_program(echo + exit_with(0), "--limit 1000000").status == 8);
}

TEST_CASE("SIGTERM: the run ends in good order with status 8") {
    const TemporaryFile kernel(multiboot_flat(print('.') + spin));
    const Outcome outcome = exeunt_with("run --memory 16M --kernel " + kernel.path + " & sleep 0.5; kill -TERM $!; wait $!");
    CHECK(outcome.status == 8);
    CHECK(outcome.out == ".");
}

TEST_CASE("--stats: ticks, seconds and MIPS on standard error") {
    const Outcome outcome = run_program(exit_with(0), "--stats");
    CHECK(outcome.err.starts_with("exeunt: 2 ticks, "));
    CHECK(one_line(outcome.err));
}

TEST_CASE("--help and --version succeed") {
    CHECK(exeunt_with("--version").out.starts_with("exeunt "));
    CHECK(exeunt_with("--help").status == 0);
    const Outcome help = exeunt_with("run --help");
    CHECK(help.status == 0);
    CHECK(help.out.find("--kernel") != std::string::npos);
}

TEST_CASE("cpu: lists the models, and the features of one") {
    const Outcome list = exeunt_with("cpu");
    CHECK(list.status == 0);
    CHECK(list.out.find("intel-max") != std::string::npos);
    CHECK(exeunt_with("cpu intel-max").out.find("VMX") != std::string::npos);
    const Outcome unknown = exeunt_with("cpu no-such-model");
    CHECK(unknown.status == 2);
    CHECK(one_line(unknown.err));
}
