// Times every kernel that computes a problem, on this machine's GPU: tune HEIGHT WIDTH CHANNELS LABELS RADIUS STEP...,
// a window step for each slot. One line per row of the dispatch table: name;type;milliseconds, or name;type;why not.
// Built and run by tune.py.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include <cuda_fp16.h>

#include "launch.hpp"

namespace {

constexpr int WARM_UP = 5, ROUNDS = 30;

void check(int error, const char* what) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(cudaError_t(error)));
    std::exit(1);
}

void* device_copy(const std::vector<float>& values, maskring::ElementType type) {
    void* memory = nullptr;
    if (type == maskring::ElementType::float32) {
        check(cudaMalloc(&memory, 4 * values.size()), "memory");
        check(cudaMemcpy(memory, values.data(), 4 * values.size(), cudaMemcpyHostToDevice), "copy");
        return memory;
    }
    std::vector<__half> halves;
    for (float value : values) halves.push_back(__float2half(value));
    check(cudaMalloc(&memory, 2 * halves.size()), "memory");
    check(cudaMemcpy(memory, halves.data(), 2 * halves.size(), cudaMemcpyHostToDevice), "copy");
    return memory;
}

float median_ms(int row, const maskring::AffinityProblem& problem) {
    cudaEvent_t start, end;
    check(cudaEventCreate(&start), "event");
    check(cudaEventCreate(&end), "event");
    std::vector<float> times;
    for (int i = 0; i < WARM_UP + ROUNDS; ++i) {
        check(cudaEventRecord(start), "event");
        check(maskring::launch(row, problem, nullptr), maskring::configuration_name(row));
        check(cudaEventRecord(end), "event");
        check(cudaEventSynchronize(end), maskring::configuration_name(row));
        float ms = 0;
        check(cudaEventElapsedTime(&ms, start, end), "event");
        if (i >= WARM_UP) times.push_back(ms);
    }
    std::nth_element(times.begin(), times.begin() + ROUNDS / 2, times.end());
    return times[ROUNDS / 2];
}

void time_rows(maskring::AffinityProblem problem, const std::vector<std::int32_t>& steps, int sm) {
    std::mt19937 random(0);
    const auto normal = [&](std::size_t count) {
        std::normal_distribution<float> distribution;
        std::vector<float> values(count);
        for (float& value : values) value = distribution(random);
        return values;
    };
    const std::size_t plane = std::size_t(problem.height) * problem.width;
    problem.query = device_copy(normal(plane * problem.channels), problem.type);
    problem.keys = device_copy(normal(plane * problem.channels * problem.slots), problem.type);
    problem.values = device_copy(normal(plane * problem.labels * problem.slots), problem.type);
    problem.out = device_copy(std::vector<float>(plane * problem.labels), problem.type);
    std::int32_t* dilation = nullptr;
    check(cudaMalloc(&dilation, 4 * steps.size()), "memory");
    check(cudaMemcpy(dilation, steps.data(), 4 * steps.size(), cudaMemcpyHostToDevice), "copy");
    problem.dilation = dilation;
    const char* type = problem.type == maskring::ElementType::float32 ? "f32" : "f16";
    for (int row = 0; row < maskring::configuration_count(); ++row) {
        const char* reason = "";
        std::printf("%s;%s;", maskring::configuration_name(row), type);
        if (maskring::can_run(row, problem, sm, &reason)) {
            check(cudaMalloc(&problem.workspace, maskring::workspace_bytes(row, problem)), "workspace");
            std::printf("%.4f\n", median_ms(row, problem));
            check(cudaFree(problem.workspace), "workspace");
        } else
            std::printf("%s\n", reason);
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 7) return 2;
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::fprintf(stderr, "This machine has no CUDA GPU that its driver shows; run this where one is.\n");
        return 1;
    }
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, 0), "device");
    maskring::AffinityProblem problem{};
    problem.batch = 1;
    problem.height = std::atoi(arguments[1]);
    problem.width = std::atoi(arguments[2]);
    problem.channels = std::atoi(arguments[3]);
    problem.labels = std::atoi(arguments[4]);
    problem.radius = std::atoi(arguments[5]);
    std::vector<std::int32_t> steps;
    for (int i = 6; i < count; ++i) steps.push_back(std::atoi(arguments[i]));
    problem.slots = int(steps.size());
    problem.scale = 0.125f;
    for (auto type : {maskring::ElementType::float16, maskring::ElementType::float32}) {
        problem.type = type;
        time_rows(problem, steps, 10 * properties.major + properties.minor);
    }
}
