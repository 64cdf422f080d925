// Runs data/image.h for tests/parity/test_images.py: one command a line on stdin, one answer a line
// on stdout, "ok WIDTH HEIGHT" (pixels are in OUT, raw RGB) or "error MESSAGE".
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>

#include "core/error.h"
#include "data/image.h"

namespace {

trireme::Image run(const std::string& command, const std::string& in, std::istream& arguments) {
  const trireme::Image image = trireme::read_image(in);
  int64_t a = 0, b = 0;
  if (command == "read") return image;
  if (command == "resize" && arguments >> a >> b) return trireme::resize_lanczos(image, a, b);
  if (command == "crop" && arguments >> a) return trireme::resize_and_centre_crop(image, a);
  std::string png;
  if (command == "write" && arguments >> png) {
    trireme::write_png(png, image);
    return image;
  }
  throw std::invalid_argument("usage: read|resize|crop|write IN OUT [ARGUMENTS]");
}
}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string command, in, out;
    words >> command >> in >> out;
    try {
      const trireme::Image image = run(command, in, words);
      std::ofstream(out, std::ios::binary)
          .write(reinterpret_cast<const char*>(image.pixels.data()),
                 static_cast<std::streamsize>(image.pixels.size()));
      std::cout << "ok " << image.width << " " << image.height << std::endl;
    } catch (const trireme::InputError& error) {
      std::cout << "error " << error.what() << std::endl;
    }
  }
}
