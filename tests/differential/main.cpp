// differential [--seed N] [--cases N] [--mnemonic ROW] [--complete] [doctest's options]
#define DOCTEST_CONFIG_IMPLEMENT
#include "tests/differential/runner.hpp"

#include <cstdlib>
#include <doctest/doctest.h>
#include <iostream>
#include <string_view>

int main(int argc, char** argv) {
    auto& given = exeunt::test::options();
    for (int i = 1; i < argc; ++i) {
        const std::string_view option = argv[i];
        const bool more = i + 1 < argc;
        if (option == "--seed" && more) given.seed = std::strtoull(argv[++i], nullptr, 0);
        if (option == "--cases" && more) given.cases = std::strtoull(argv[++i], nullptr, 0);
        if (option == "--mnemonic" && more) given.mnemonic = argv[++i];
        if (option == "--complete") given.complete = true;
    }
    std::cout << "seed " << given.seed << ", " << given.cases << " cases\n";
    doctest::Context context(argc, argv);
    return context.run();
}
