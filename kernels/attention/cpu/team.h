// The threads that share one call's work: this one, and some of XLA's pool.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "xla/ffi/api/ffi.h"

inline void pause_a_little() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// A call is many short pieces of work, one after the other, so whoever helps stays for the next one: to be woken takes
// longer than most of them. Tasks are taken one by one, and what no other thread has begun this one does, so nobody
// waits for a thread that hasn't come. Who has found nothing to do for a while goes, and is called again.
class Team {
 public:
  explicit Team(xla::ffi::ThreadPool& pool) : pool_(pool), shared_(std::make_shared<Shared>()) {
    shared_->caller = std::this_thread::get_id();
  }
  Team(const Team&) = delete;
  ~Team() { shared_->over.store(true, std::memory_order_release); }

  int64_t threads() const { return std::max<int64_t>(1, pool_.num_threads()); }

  // Runs task(0) to task(count - 1), the last ones first.
  template <typename Task>
  void run(int64_t count, const Task& task) {
    if (count <= 1 || threads() == 1) {
      for (int64_t index = count; index-- > 0;) task(index);
      return;
    }
    Shared& all = *shared_;
    const std::function<void(int64_t)> wrapped = [&](int64_t index) { task(index); };
    all.task = &wrapped;
    all.done.store(0, std::memory_order_relaxed);
    all.left.store(count, std::memory_order_release);
    call(count);
    while (all.take()) continue;
    for (int waited = 0; all.done.load(std::memory_order_acquire) < count; ++waited) {
      // One that was interrupted may want this very processor.
      if (waited < kPatience) {
        pause_a_little();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(20));
      }
    }
  }

 private:
  static constexpr int kPatience = 4000;  // pauses: some tens of microseconds

  struct Shared {
    const std::function<void(int64_t)>* task;  // whoever has taken a task finds it here until that is done
    alignas(64) std::atomic<int64_t> left{0};
    alignas(64) std::atomic<int64_t> done{0};
    alignas(64) std::atomic<int64_t> helpers{0};
    std::atomic<bool> over{false};
    std::thread::id caller;

    // Does one task, if there is any.
    bool take() {
      int64_t number = left.load(std::memory_order_relaxed);
      do {
        if (number <= 0) return false;
      } while (!left.compare_exchange_weak(number, number - 1, std::memory_order_acq_rel, std::memory_order_relaxed));
      (*task)(number - 1);
      done.fetch_add(1, std::memory_order_release);
      return true;
    }

    void help() {
      for (int waited = 0; waited < kPatience && !over.load(std::memory_order_acquire); ++waited) {
        if (take()) waited = 0;
        pause_a_little();
      }
      helpers.fetch_sub(1, std::memory_order_relaxed);
    }
  };

  void call(int64_t count) {
    const int64_t wanted = std::min(count, threads()) - 1;
    while (shared_->helpers.load(std::memory_order_relaxed) < wanted) {
      shared_->helpers.fetch_add(1, std::memory_order_relaxed);
      pool_.Schedule([shared = shared_] {
        // Without a pool it is called here and now.
        if (std::this_thread::get_id() != shared->caller) shared->help();
      });
    }
  }

  xla::ffi::ThreadPool& pool_;
  std::shared_ptr<Shared> shared_;
};
