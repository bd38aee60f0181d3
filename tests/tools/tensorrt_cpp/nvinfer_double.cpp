// libnvinfer with nothing in it but the plugin registry, which names on stdout the plugins of each library it is given.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>

namespace {

using namespace nvinfer1;

class Registry : public IPluginRegistry {
public:
    PluginLibraryHandle loadLibrary(const AsciiChar* path) noexcept override {
        void* const library = dlopen(path, RTLD_LAZY);
        if (library == nullptr) return nullptr;
        using Creators = IPluginCreatorInterface* const* (*)(std::int32_t&);
        std::int32_t count = 0;
        const auto creators = reinterpret_cast<Creators>(dlsym(library, "getCreators"))(count);
        for (std::int32_t i = 0; i < count; ++i) {
            const auto& creator = static_cast<const IPluginCreatorV3One&>(*creators[i]);
            std::printf("%s %s %s\n", creator.getPluginName(), creator.getPluginVersion(),
                        creator.getPluginNamespace());
        }
        std::fflush(stdout);
        return library;
    }
};

}  // namespace

extern "C" __attribute__((visibility("default"))) IPluginRegistry* getPluginRegistry() {
    static Registry registry;
    return &registry;
}
