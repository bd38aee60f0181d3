// Tracks a square through a few frames with an exported model: onnxruntime's C++ interface and maskring's operator library.
//
//   maskring export pico --out model.onnx
//   ./track model.onnx libmaskring_onnxruntime.so      (python -c "import maskring.plugins as p; print(p.onnxruntime_library())")
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

namespace {

constexpr std::int64_t HEIGHT = 96, WIDTH = 128, ROWS = HEIGHT / 4, COLUMNS = WIDTH / 4;
constexpr std::int64_t SLOTS = 4, LABELS = 2;
constexpr int SIDE = 40, TOP = 24;

template <typename T, std::size_t RANK>
Ort::Value tensor(std::vector<T>& data, const std::array<std::int64_t, RANK>& shape) {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    return Ort::Value::CreateTensor<T>(memory, data.data(), data.size(), shape.data(), RANK);
}

// A checkered square, `left` pixels from the edge, on a grey frame.
std::vector<std::uint8_t> draw(int left) {
    std::vector<std::uint8_t> frame(HEIGHT * WIDTH * 3, 90);
    for (int y = 0; y < SIDE; ++y)
        for (int x = 0; x < SIDE; ++x) {
            std::uint8_t* pixel = &frame[((TOP + y) * WIDTH + left + x) * 3];
            pixel[0] = 230, pixel[1] = (x / 8 + y / 8) % 2 ? 30 : 200, pixel[2] = 20;
        }
    return frame;
}

}  // namespace

int main(int count, char** arguments) try {
    if (count != 3) return std::fprintf(stderr, "usage: track MODEL.onnx LIBRARY.so\n"), 2;
    Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "track");
    Ort::SessionOptions options;
    options.RegisterCustomOpsLibrary(arguments[2]);
    Ort::Session session(environment, arguments[1], options);

    const std::int64_t channels = session.GetInputTypeInfo(1).GetTensorTypeAndShapeInfo().GetShape()[2];
    const std::size_t plane = ROWS * COLUMNS;
    std::vector<float> keys(SLOTS * channels * plane), values(SLOTS * LABELS * plane);
    std::vector<std::int32_t> dilation(SLOTS);

    const char* inputs[] = {"frame", "memory_keys", "memory_values", "memory_dilation"};
    const char* outputs[] = {"labels", "value", "key"};
    for (int index = 0; index < 8; ++index) {
        const int left = 16 + 4 * index;
        std::vector<std::uint8_t> frame = draw(left);
        Ort::Value given[] = {tensor(frame, std::array{std::int64_t{1}, HEIGHT, WIDTH, std::int64_t{3}}),
                              tensor(keys, std::array{std::int64_t{1}, SLOTS, channels, ROWS, COLUMNS}),
                              tensor(values, std::array{std::int64_t{1}, SLOTS, LABELS, ROWS, COLUMNS}),
                              tensor(dilation, std::array{std::int64_t{1}, SLOTS})};
        const auto results = session.Run(Ort::RunOptions{}, inputs, given, 4, outputs, 3);

        // Frame 0 stays in slot 0; the others take turns in the rest.
        const int slot = index < SLOTS ? index : 1 + (index - 1) % (SLOTS - 1);
        std::memcpy(&keys[slot * channels * plane], results[2].GetTensorData<float>(),
                    channels * plane * sizeof(float));
        float* value = &values[slot * LABELS * plane];
        std::memcpy(value, results[1].GetTensorData<float>(), LABELS * plane * sizeof(float));
        if (index == 0)  // the user's mask, sampled at the features
            for (std::int64_t i = 0; i < static_cast<std::int64_t>(plane); ++i) {
                const std::int64_t y = i / COLUMNS * 4, x = i % COLUMNS * 4;
                const bool inside = y >= TOP && y < TOP + SIDE && x >= left && x < left + SIDE;
                value[i] = !inside, value[plane + i] = inside;
            }
        dilation[slot] = 1;
        if (index == 0) continue;

        const std::uint8_t* labels = results[0].GetTensorData<std::uint8_t>();
        std::int64_t both = 0, either = 0;
        for (std::int64_t i = 0; i < HEIGHT * WIDTH; ++i) {
            const std::int64_t y = i / WIDTH, x = i % WIDTH;
            const bool inside = y >= TOP && y < TOP + SIDE && x >= left && x < left + SIDE;
            both += inside && labels[i], either += inside || labels[i];
        }
        std::printf("frame %d: overlap with the square %.3f\n", index,
                    double(both) / double(std::max<std::int64_t>(1, either)));
    }
    return 0;
} catch (const Ort::Exception& error) {
    return std::fprintf(stderr, "error: %s\n", error.what()), 1;
}
