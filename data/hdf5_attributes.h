#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/hdf5_handles.h"

namespace trireme::hdf5 {

// The text of one string element in memory that HDF5 filled: variable length (`bytes` holds a
// char*) or fixed, without its padding.
[[nodiscard]] std::string string_from(hid_t type, const char* bytes);

// The attribute `name` of `object`: absent, or of one element and the kind asked for, else
// InputError beginning with `where`. REQUIRES: within a Scope.
[[nodiscard]] std::optional<std::string> read_string_attribute(hid_t object, const char* name,
                                                               const std::string& where);
[[nodiscard]] std::optional<double> read_number_attribute(hid_t object, const char* name,
                                                          const std::string& where);

// All string and number attributes as text, by name; others are left out.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> list_attributes(hid_t object);
}  // namespace trireme::hdf5
