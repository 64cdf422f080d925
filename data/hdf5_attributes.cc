#include "data/hdf5_attributes.h"

#include <cstring>
#include <string_view>

#include "core/error.h"
#include "core/formatted.h"

namespace trireme::hdf5 {
namespace {
constexpr size_t kMaxStringBytes = size_t{1} << 20;

struct OpenAttribute {
  AttributeHandle attribute;
  DatatypeHandle type;
  DataspaceHandle space;
};

OpenAttribute open_attribute(hid_t object, const char* name) {
  OpenAttribute open;
  open.attribute =
      AttributeHandle(check_h5(H5Aopen(object, name, H5P_DEFAULT), "open an attribute"));
  open.type =
      DatatypeHandle(check_h5(H5Aget_type(open.attribute.get()), "read an attribute's type"));
  open.space =
      DataspaceHandle(check_h5(H5Aget_space(open.attribute.get()), "read an attribute's size"));
  return open;
}

bool is_single(const OpenAttribute& open) {
  return H5Sget_simple_extent_npoints(open.space.get()) == 1;
}

std::string read_string(const OpenAttribute& open) {
  const hid_t type = open.type.get();
  if (H5Tis_variable_str(type) > 0) {
    char* text = nullptr;
    check_h5(H5Aread(open.attribute.get(), type, &text), "read a string attribute");
    std::string result = string_from(type, reinterpret_cast<const char*>(&text));
    H5Dvlen_reclaim(type, open.space.get(), H5P_DEFAULT, &text);
    return result;
  }
  const size_t size_bytes = H5Tget_size(type);
  if (size_bytes > kMaxStringBytes) return {};
  std::vector<char> bytes(size_bytes);
  check_h5(H5Aread(open.attribute.get(), type, bytes.data()), "read a string attribute");
  return string_from(type, bytes.data());
}

bool is_number(hid_t type) {
  const H5T_class_t kind = H5Tget_class(type);
  return kind == H5T_INTEGER || kind == H5T_FLOAT;
}

double read_number(const OpenAttribute& open) {
  double value = 0.0;
  check_h5(H5Aread(open.attribute.get(), H5T_NATIVE_DOUBLE, &value), "read a number attribute");
  return value;
}

herr_t collect_name(hid_t, const char* name, const H5A_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}
}  // namespace

std::string string_from(hid_t type, const char* bytes) {
  if (H5Tis_variable_str(type) > 0) {
    const char* text = nullptr;
    std::memcpy(&text, bytes, sizeof text);
    return text == nullptr ? "" : text;
  }
  std::string_view text(bytes, H5Tget_size(type));
  text = text.substr(0, text.find('\0'));
  if (H5Tget_strpad(type) == H5T_STR_SPACEPAD) {
    const size_t last = text.find_last_not_of(' ');
    text = text.substr(0, last == text.npos ? 0 : last + 1);
  }
  return std::string(text);
}

std::optional<std::string> read_string_attribute(hid_t object, const char* name,
                                                 const std::string& where) {
  if (check_h5(H5Aexists(object, name), "look for an attribute") == 0) return std::nullopt;
  const OpenAttribute open = open_attribute(object, name);
  if (H5Tget_class(open.type.get()) != H5T_STRING || !is_single(open)) {
    throw InputError(where + ": attribute \"" + name + "\" is not a single string. See " +
                     "docs/dataset_format.md.");
  }
  return read_string(open);
}

std::optional<double> read_number_attribute(hid_t object, const char* name,
                                            const std::string& where) {
  if (check_h5(H5Aexists(object, name), "look for an attribute") == 0) return std::nullopt;
  const OpenAttribute open = open_attribute(object, name);
  if (!is_number(open.type.get()) || !is_single(open)) {
    throw InputError(where + ": attribute \"" + name + "\" is not a single number. See " +
                     "docs/dataset_format.md.");
  }
  return read_number(open);
}

std::vector<std::pair<std::string, std::string>> list_attributes(hid_t object) {
  std::vector<std::string> names;
  check_h5(H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, nullptr, collect_name, &names),
           "list attributes");
  std::vector<std::pair<std::string, std::string>> result;
  for (const std::string& name : names) {
    const OpenAttribute open = open_attribute(object, name.c_str());
    if (!is_single(open)) continue;
    if (H5Tget_class(open.type.get()) == H5T_STRING) {
      result.emplace_back(name, read_string(open));
    } else if (is_number(open.type.get())) {
      result.emplace_back(name, formatted("%.9g", read_number(open)));
    }
  }
  return result;
}
}  // namespace trireme::hdf5
