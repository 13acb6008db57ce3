// The peer of bench_decoders.py: simdjson's on-demand parser, one order at a time, into columns.
//
//     simdjson_orders ORDERS FIELDS
//
// ORDERS holds records of a 32-bit little-endian length and that many bytes of JSON. FIELDS is 9 (all) or 2
// (price and qty). For every line on standard input all orders are decoded once into fresh columns, and a line
// `rows checksum` is written. find_field expects the keys in their order, which is simdjson's fastest way.
#include <simdjson.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace {

struct Text {
    std::vector<char> bytes;
    std::vector<int32_t> offsets;
    size_t used = 0;

    void reserve(size_t rows, size_t size) {
        bytes.resize(size);
        offsets.resize(rows + 1);
    }
    void put(size_t row, std::string_view text) {
        std::memcpy(bytes.data() + used, text.data(), text.size());
        used += text.size();
        offsets[row + 1] = static_cast<int32_t>(used);
    }
};

struct Orders {
    std::vector<int64_t> order_id, customer_id, qty, ts;
    std::vector<double> price;
    Text symbol, side, venue, note;

    explicit Orders(size_t rows) : order_id(rows), customer_id(rows), qty(rows), ts(rows), price(rows) {
        for (Text *text : {&symbol, &side, &venue, &note}) text->reserve(rows, rows * 200);
    }
    void clear() {
        for (Text *text : {&symbol, &side, &venue, &note}) text->used = 0;
    }
};

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    std::ifstream file(argv[1], std::ios::binary);
    std::string orders((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const bool all = std::string_view(argv[2]) == "9";
    const size_t size = orders.size();
    orders.resize(size + simdjson::SIMDJSON_PADDING);
    constexpr size_t batch = 4096;  // the same rows a batch as on our side, so that the columns stay in the cache
    Orders columns(batch);
    simdjson::ondemand::parser parser;
    for (std::string line; std::getline(std::cin, line);) {
        size_t rows = 0, row = 0;
        columns.clear();
        for (size_t at = 0; at < size;) {
            uint32_t length;
            std::memcpy(&length, orders.data() + at, 4);
            at += 4;
            if (row == batch) {
                row = 0;
                columns.clear();
            }
            simdjson::padded_string_view payload(orders.data() + at, length, size + simdjson::SIMDJSON_PADDING - at);
            auto document = parser.iterate(payload);
            auto order = document.get_object();
            if (all) {
                columns.order_id[row] = order.find_field("order_id").get_int64();
                columns.customer_id[row] = order.find_field("customer_id").get_int64();
                columns.symbol.put(row, order.find_field("symbol").get_string());
                columns.side.put(row, order.find_field("side").get_string());
                columns.price[row] = order.find_field("price").get_double();
                columns.qty[row] = order.find_field("qty").get_int64();
                columns.ts[row] = order.find_field("ts").get_int64();
                columns.venue.put(row, order.find_field("venue").get_string());
                columns.note.put(row, order.find_field("note").get_string());
            } else {
                columns.price[row] = order.find_field("price").get_double();
                columns.qty[row] = order.find_field("qty").get_int64();
            }
            at += length;
            row++;
            rows++;
        }
        std::printf("%zu %.17g\n", rows, columns.price[0]);
        std::fflush(stdout);
    }
    return 0;
}
