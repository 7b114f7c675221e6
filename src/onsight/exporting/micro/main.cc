// For your computer, not for the microcontroller: reads images of kImageSize x kImageSize x 3 bytes (RGB) from standard
// input, and prints for each its label, "unsure" or "sure", and all probabilities.
#ifndef ARDUINO
#include <cstdio>

#include "classifier.h"

int main() {
  static std::uint8_t image[kImageSize * kImageSize * 3];
  if (!BeginClassifier()) return 1;
  while (std::fread(image, 1, sizeof(image), stdin) == sizeof(image)) {
    Answer answer;
    if (!Classify(image, &answer)) return 1;
    std::printf("%s\t%s", kLabels[answer.best], answer.unsure ? "unsure" : "sure");
    for (int index = 0; index < kClasses; ++index) std::printf("\t%.6f", answer.probabilities[index]);
    std::printf("\n");
  }
  return 0;
}
#endif
