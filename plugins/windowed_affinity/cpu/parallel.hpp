// Runs independent tasks on threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace maskring {

// Call `work(index, thread)` for all indices below `count`, on up to `threads` threads including this one. `work` must
// not throw.
template <typename Work>
void parallel(int count, int threads, const Work& work) {
    std::atomic<int> next{0};
    const auto loop = [&](int thread) {
        for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(i, thread);
    };
    const int used = std::min(threads, count);
    std::vector<std::thread> helpers;
    helpers.reserve(std::max(used, 0));  // so that emplace_back cannot throw while threads are not joined
    try {
        for (int t = 1; t < used; ++t) helpers.emplace_back(loop, t);
    } catch (const std::exception&) {
        // No more threads or memory: the threads that started do all the work.
    }
    loop(0);
    for (std::thread& helper : helpers) helper.join();
}

}  // namespace maskring
