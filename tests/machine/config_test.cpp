#include "machine/config.hpp"

#include "tests/machine/temporary_file.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

TEST_CASE("configuration: JSON and back gives the same machine") {
    MachineConfig config;
    config.cpu = "amd-max";
    config.cpus = 3;
    config.memory = u64{5} << 30;
    config.kernel = {"k", "00112233445566778899aabbccddeeff", 77};
    config.initrds = {{"a", "01", 1}, {"b", "02", 2, "console=hvc0"}};
    config.append = "x \"y\" \\ z";
    config.random_seed = ~u64{0};
    config.schedule = {.slice = 7, .seed = 8, .limit = 9};
    const MachineConfig back = MachineConfig::from_json(config.to_json(), "text");
    CHECK(back.to_json() == config.to_json());
    CHECK(back.initrds.at(1).xxh128 == "02");
    CHECK(back.initrds.at(1).text == "console=hvc0");
    CHECK(back.schedule.limit == 9);
    CHECK(back.append == config.append);
}

TEST_CASE("configuration: malformed JSON names file, key and what was expected") {
    CHECK_THROWS_WITH_AS(MachineConfig::from_json("{", "c.json"), "c.json: expected JSON", BadInput);
    CHECK_THROWS_WITH_AS(MachineConfig::from_json("[]", "c.json"), "c.json: expected a JSON object", BadInput);
    CHECK_THROWS_WITH_AS(MachineConfig::from_json(R"({"cpus": -1})", "c.json"),
                         "c.json: cpus: expected an integer from 0 to 4294967295", BadInput);
    CHECK_THROWS_WITH_AS(MachineConfig::from_json(R"({"kernel": {"path": 1}})", "c.json"),
                         "c.json: kernel.path: expected a string", BadInput);
    CHECK_THROWS_WITH_AS(MachineConfig::from_json(R"({"initrds": [3]})", "c.json"),
                         "c.json: initrds[0]: expected a JSON object", BadInput);
    CHECK_THROWS_WITH_AS(MachineConfig::from_json(R"({"schedule": {"slide": 3}})", "c.json"),
                         "c.json: schedule.slide: expected no such key", BadInput);
}

TEST_CASE("configuration: values out of range are refused by the option's name") {
    MachineConfig config;
    config.kernel.path = "k";
    CHECK_NOTHROW(config.validate());
    config.cpus = 65;
    CHECK_THROWS_WITH_AS(config.validate(), "--cpus: expected a number from 1 to 64", BadInput);
    config.cpus = 1;
    config.memory = (u64{64} << 30) + 4096;
    CHECK_THROWS_AS(config.validate(), BadInput);
    config.memory = (u64{64} << 20) + 1;
    CHECK_THROWS_AS(config.validate(), BadInput);
}

TEST_CASE("sizes: plain bytes and the suffixes K, M, G") {
    CHECK(parse_size("1048576", "--memory") == u64{1} << 20);
    CHECK(parse_size("512M", "--memory") == u64{512} << 20);
    CHECK(parse_size("2g", "--memory") == u64{2} << 30);
    for (const char* bad : {"", "M", "1T", "1GB", "-1G", "99999999999999999999", "17179869184G", "0x10"}) {
        CAPTURE(bad);
        CHECK_THROWS_AS(parse_size(bad, "--memory"), BadInput);
    }
}

TEST_CASE("images: the hash is XXH3-128, and a file that changed since is refused") {
    const TemporaryFile file;
    file.write("abc");
    ImageFile image{.path = file.path};
    CHECK(read_image(image) == std::vector<u8>{'a', 'b', 'c'});
    CHECK(image.bytes == 3);
    CHECK(image.xxh128 == "06b05ab6733a618578af5f94892f3950");
    CHECK_NOTHROW(hash_image(image));
    file.write("abd");
    CHECK_THROWS_AS(read_image(image), BadInput);
    ImageFile missing{.path = "/no/such/file"}, directory{.path = "/"};
    CHECK_THROWS_WITH_AS(read_image(missing), "/no/such/file: expected a readable file (No such file or directory)",
                         BadInput);
    CHECK_THROWS_WITH_AS(read_image(directory), "/: expected a file, not a directory", BadInput);
}
