// Print a file of presets as llama-server reads it: a library that is loaded beside xllamacpp.
// Only the layout declared here is relied on; the context needs no more than that it fits its room.
#include <cstdio>
#include <filesystem>
#include <map>
#include <new>
#include <string>

enum llama_example : int { LLAMA_EXAMPLE_SERVER = 12 };

struct common_preset {
    std::string name;
    std::map<int, std::string> options; // by another key in llama.cpp, at the same place
    std::string to_ini() const;
};
struct common_preset_context {
    common_preset_context(llama_example);
    std::map<std::string, common_preset> load_from_ini(
        const std::filesystem::path &, common_preset &) const;
};

alignas(16) static char room[1 << 20];

extern "C" int print_presets(const char * file) {
    try {
        auto * context = new (room) common_preset_context(LLAMA_EXAMPLE_SERVER);
        auto * global = new common_preset();
        auto * found = new auto(context->load_from_ini(file, *global));
        for (const auto & [name, preset] : *found) std::fputs(preset.to_ini().c_str(), stdout);
        std::fflush(stdout);
        return 0; // nothing is destroyed: what is inside is of another type
    } catch (const std::exception & error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
