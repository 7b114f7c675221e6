#include "classifier.h"

#include <cstring>

#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) std::uint8_t arena[kArenaSize];
tflite::MicroInterpreter* interpreter = nullptr;

}  // namespace

bool BeginClassifier() {
  tflite::InitializeTarget();
  static Resolver resolver;
  if (interpreter == nullptr && AddOperators(resolver) != kTfLiteOk) return false;
  static tflite::MicroInterpreter made(tflite::GetModel(kModel), resolver, arena, kArenaSize);
  if (made.AllocateTensors() != kTfLiteOk) return false;
  interpreter = &made;
  return true;
}

bool Classify(const std::uint8_t* rgb, Answer* answer) {
  if (interpreter == nullptr) return false;
  std::memcpy(interpreter->input(0)->data.uint8, rgb, kImageSize * kImageSize * 3);
  if (interpreter->Invoke() != kTfLiteOk) return false;
  answer->probabilities = interpreter->output(0)->data.f;
  answer->best = 0;
  for (int index = 1; index < kClasses; ++index) {
    if (answer->probabilities[index] > answer->probabilities[answer->best]) answer->best = index;
  }
  answer->unsure = answer->probabilities[answer->best] < kUnsureBelow;
  if (kHasDistance && interpreter->output(1)->data.f[0] > kUnlikeAbove) answer->unsure = true;
  return true;
}
