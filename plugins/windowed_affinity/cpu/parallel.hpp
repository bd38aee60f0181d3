// Runs independent tasks on threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <type_traits>
#include <vector>

#include "problem.hpp"

namespace maskring {

// Call `work(index, thread)` for all indices below `count`, on up to `workers.count` threads including this one. `work`
// must not throw.
template <typename Work>
void parallel(int count, const Workers& workers, const Work& work) {
    std::atomic<int> next{0};
    const auto loop = [&](int thread) {
        for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(i, thread);
    };
    const int used = std::min(workers.count, count);
    if (used > 1 && workers.run != nullptr) {
        const auto task = [](void* self, std::size_t thread) {
            (*static_cast<decltype(loop)*>(self))(static_cast<int>(thread));
        };
        workers.run(workers.pool, used, task, const_cast<std::remove_const_t<decltype(loop)>*>(&loop));
        return;
    }
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
