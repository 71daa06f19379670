// `exeunt run`: a machine, from its options to its exit status.
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "cli/recording.hpp"
#include "machine/machine.hpp"

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <memory>

namespace exeunt {

namespace {

struct RunOptions {
    MachineConfig config;
    std::string memory = "1G";
    std::vector<std::string> initrds;
    std::string serial = "stdio";
    std::string trace;
    bool stats = false;
};

/// What --serial asked for.
struct Serial {
    std::unique_ptr<SerialOutput> output;
    std::unique_ptr<Console> console;
};

Serial open_serial(const std::string& option) {
    Serial serial;
    if (option == "stdio") {
        serial.output = std::make_unique<SerialOutput>();
        serial.console = std::make_unique<Console>();
    } else if (option.starts_with("file:") && option.size() > 5) {
        serial.output = std::make_unique<SerialOutput>(option.substr(5));
    } else if (option != "none") {
        throw BadInput("--serial", option, "stdio, file:PATH or none");
    }
    return serial;
}

/// Native work between two slices: output to its readers, signals and keys to the machine.
void between_slices(Machine& machine, Serial& serial, Recording* recording) {
    if (serial.output && serial.output->waiting()) {
        if (serial.console) serial.console->note_output();
        if (!serial.output->flush())
            machine.loop().end({.reason = EndReason::interrupted,
                                .message = "the serial output could not be written"});
    }
    if (recording) recording->poll();
    if (serial.console && serial.console->quit_requested()) machine.loop().end({.reason = EndReason::quit});
    if (const int number = StopSignals::received(); number != 0)
        machine.loop().end({.reason = EndReason::interrupted,
                            .message = fmt::format("interrupted by signal {} at tick {}", number, machine.now())});
}

void print_stats(Tick ticks, std::chrono::steady_clock::duration passed) {
    const double seconds = std::chrono::duration<double>(passed).count();
    fmt::print(stderr, "exeunt: {} ticks, {:.3f} s, {:.1f} MIPS\n", ticks, seconds,
               seconds > 0 ? static_cast<double>(ticks) / seconds / 1e6 : 0.0);
}

/// FILE, or "FILE TEXT": a multiboot module with its command line.
ImageFile initrd_file(const std::string& argument) {
    const std::size_t space = argument.find(' ');
    std::error_code error;
    if (space == std::string::npos || std::filesystem::exists(argument, error)) return {.path = argument};
    return {.path = argument.substr(0, space), .text = argument.substr(space + 1)};
}

int run(RunOptions& options) {
    options.config.memory = parse_size(options.memory, "--memory");
    for (const std::string& argument : options.initrds) options.config.initrds.push_back(initrd_file(argument));
    if (!options.trace.empty() && options.config.drive.given()) hash_image(options.config.drive);
    Machine machine(options.config);
    std::unique_ptr<Recording> recording;
    if (!options.trace.empty()) recording = start_recording(options.trace);
    machine.boot();
    if (recording) {
        machine.set_observer(recording->observer());
        recording->started(machine);
    }
    Ending ending;
    const auto start = std::chrono::steady_clock::now();
    {
        const StopSignals signals;
        Serial serial = open_serial(options.serial);
        if (serial.output) machine.set_serial_output([&](u8 byte) { serial.output->put(byte); });
        if (serial.console)
            machine.set_input(*serial.console, recording ? recording->input_log() : nullptr);
        machine.loop().set_slice_end([&] { between_slices(machine, serial, recording.get()); });
        ending = machine.run();
    }
    if (recording) recording->ended(ending);
    if (!ending.message.empty()) fmt::print(stderr, "exeunt: {}\n", ending.message);
    if (options.stats) print_stats(machine.now(), std::chrono::steady_clock::now() - start);
    return ending.status();
}

constexpr const char* footer = R"(The kernel is a Linux bzImage, a multiboot 1 or 2 image, an ELF file with a PVH entry, or any x86 ELF
executable (entered in 32-bit protected mode, ELF64 in 64-bit mode, with the first 4 GiB mapped one to one).
Multiboot images get each --initrd as a module, with its command line when it is "FILE TEXT"; Linux gets them as one.

The drive's file is never written: what the guest writes lives as long as the machine.

On a terminal, --serial stdio gives every key to the guest; Ctrl-A x quits, Ctrl-A h prints help. Without a
terminal, Ctrl-C (SIGINT) or SIGTERM ends the run in good order with status 8.

Two runs with the same options, files and input are the same, tick by tick.)";

}  // namespace

void add_run(CLI::App& app, Session& session) {
    CLI::App* verb = app.add_subcommand("run", "Run a machine");
    auto o = std::make_shared<RunOptions>();
    verb->add_option("--cpu", o->config.cpu, "CPU model: a name that `exeunt cpu` lists, or a JSON file")
        ->capture_default_str();
    verb->add_option("--cpus", o->config.cpus, "number of logical processors")->capture_default_str();
    verb->add_option("--memory", o->memory, "RAM, such as 512M or 8G")->capture_default_str();
    verb->add_option("--kernel", o->config.kernel.path, "image to start")->required()->type_name("FILE");
    verb->add_option("--initrd", o->initrds, "initial RAM disk, or multiboot module as FILE or \"FILE TEXT\"; may be repeated")
        ->type_name("FILE")
        ->expected(1)
        ->take_all();
    verb->add_option("--append", o->config.append, "kernel command line");
    verb->add_option("--serial", o->serial, "the first serial line: stdio, file:PATH or none")->capture_default_str();
    verb->add_option("--trace", o->trace, "record all VM exits and entries in a new directory")->type_name("DIR");
    verb->add_option("--limit", o->config.schedule.limit, "end after so many ticks (status 8)")->type_name("TICKS");
    verb->add_option("--drive", o->config.drive.path, "raw disk image: a virtio block device")->type_name("FILE");
    verb->add_option("--seed", o->config.random_seed, "seed of RDRAND and RDSEED")->capture_default_str();
    verb->add_option("--slice", o->config.schedule.slice, "ticks before it is another CPU's turn")
        ->capture_default_str();
    verb->add_option("--schedule-seed", o->config.schedule.seed,
                     "0: CPUs take turns in order; else order and length of turns are drawn from this seed")
        ->capture_default_str();
    verb->add_flag("--stats", o->stats, "print ticks, native seconds and MIPS at the end");
    verb->footer(footer);
    verb->callback([o, &session] { session.status = run(*o); });
}

}  // namespace exeunt
