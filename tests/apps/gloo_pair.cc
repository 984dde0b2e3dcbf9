/* gloo over its ibverbs transport: two ranks sum what they have, and compare, until one of them is told to stop.
 *
 * Usage: gloo_pair DEVICE GID_INDEX          rank 0
 *        gloo_pair DEVICE GID_INDEX WHERE    rank 1; WHERE rank 0 listens
 */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <gloo/allreduce_ring_chunked.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/ibverbs/device.h>

namespace {

constexpr int kPort = 5555;
constexpr int kRanks = 2;
constexpr size_t kValues = 1 << 16;

volatile std::sig_atomic_t stopped = 0;

void all(ssize_t (*way)(int, void*, size_t), int fd, void* where, size_t size)
{
    for (auto* at = static_cast<char*>(where); size > 0;) {
        const ssize_t done = way(fd, at, size);
        if (done <= 0)
            throw std::runtime_error("the other rank is gone");
        at += done;
        size -= done;
    }
}

ssize_t put(int fd, void* where, size_t size) { return write(fd, where, size); }

/* What one rank sets the other one hears, by a connection; only one knows where the other is. */
class Connection : public gloo::rendezvous::Store {
  public:
    explicit Connection(const char* where) : fd_(where ? connected(where) : accepted()) {}

    void set(const std::string& key, const std::vector<char>& data) override
    {
        send(std::vector<char>(key.begin(), key.end()));
        send(data);
        known_[key] = data;
    }

    std::vector<char> get(const std::string& key) override
    {
        while (!known_.count(key)) {
            const std::vector<char> name = receive();
            known_[std::string(name.begin(), name.end())] = receive();
        }
        return known_[key];
    }

    void wait(const std::vector<std::string>& keys) override
    {
        for (const std::string& key : keys)
            get(key);
    }

  private:
    static sockaddr_in address(const char* where)
    {
        sockaddr_in found{};
        found.sin_family = AF_INET;
        found.sin_port = htons(kPort);
        inet_pton(AF_INET, where, &found.sin_addr);
        return found;
    }

    static int connected(const char* where)
    {
        const sockaddr_in there = address(where);
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, reinterpret_cast<const sockaddr*>(&there), sizeof there))
            throw std::runtime_error("nobody listens");
        return fd;
    }

    static int accepted()
    {
        const sockaddr_in here = address("0.0.0.0");
        const int listener = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(listener, reinterpret_cast<const sockaddr*>(&here), sizeof here) || listen(listener, 1))
            throw std::runtime_error("the port is taken");
        std::cout << "listening" << std::endl;
        const int fd = accept(listener, nullptr, nullptr);
        close(listener);
        return fd;
    }

    void send(std::vector<char> data)
    {
        uint32_t size = data.size();
        all(put, fd_, &size, sizeof size);
        all(put, fd_, data.data(), size);
    }

    std::vector<char> receive()
    {
        uint32_t size;
        all(read, fd_, &size, sizeof size);
        std::vector<char> data(size);
        all(read, fd_, data.data(), size);
        return data;
    }

    const int fd_;
    std::map<std::string, std::vector<char>> known_;
};

/* One that a float holds exactly, and another one in each round, rank and place. */
float value(int64_t round, int rank, size_t place) { return float((round * 7 + rank * 13 + place) % 100003); }

int sum(const std::shared_ptr<gloo::Context>& context)
{
    // The last place is not one of the values: it says who wants to stop.
    std::vector<float> values(kValues + 1);
    gloo::AllreduceRingChunked<float> allreduce(context, {values.data()}, int(values.size()));
    auto said = std::chrono::steady_clock::now();
    for (int64_t round = 0;; round++) {
        for (size_t i = 0; i < kValues; i++)
            values[i] = value(round, context->rank, i);
        values[kValues] = stopped;
        allreduce.run();
        for (size_t i = 0; i < kValues; i++) {
            if (values[i] != value(round, 0, i) + value(round, 1, i)) {
                std::cout << "round " << round << " is wrong at " << i << std::endl;
                return 1;
            }
        }
        if (values[kValues] > 0) {
            std::cout << "ok, " << round << " rounds" << std::endl;
            return 0;
        }
        const auto now = std::chrono::steady_clock::now();
        if (now - said >= std::chrono::seconds(1)) {
            said = now;
            std::cout << round << " rounds" << std::endl;
        }
    }
}

} // namespace

int main(int argc, char** argv)
{
    if (argc < 3)
        return 2;
    std::signal(SIGTERM, [](int) { stopped = 1; });
    auto device = gloo::transport::ibverbs::CreateDevice({argv[1], 1, std::stoi(argv[2])});
    auto context = std::make_shared<gloo::rendezvous::Context>(argc > 3, kRanks);
    Connection store(argv[3]);
    context->connectFullMesh(store, device);
    return sum(context);
}
