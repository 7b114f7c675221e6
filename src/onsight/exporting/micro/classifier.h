// Runs the model of this folder with TensorFlow Lite Micro (C++17). model.h describes the model.
#pragma once

#include <cstdint>

#include "model.h"

struct Answer {
  const float* probabilities;  // kClasses of them, in the order of kLabels; valid until the next call
  int best;                    // the index of the largest
  bool unsure;                 // whether the answer should not be relied on: see kUnsureBelow and kUnlikeAbove
};

// Prepares the model. Call it once. Returns false if it failed; TensorFlow Lite Micro's log then says why.
bool BeginClassifier();

// Classifies one image of kImageSize x kImageSize pixels: row by row, 3 bytes per pixel, red, green, blue.
// Returns false if the model failed.
bool Classify(const std::uint8_t* rgb, Answer* answer);
