// A sketch for Arduino and ESP32. It needs a library that brings TensorFlow Lite Micro, for example
// Chirale_TensorFlowLite (Arduino's Library Manager) or esp-tflite-micro (ESP-IDF's component registry).
#include "classifier.h"

static uint8_t image[kImageSize * kImageSize * 3];  // RGB

// Fill `image` from your camera: take the centre square, scale it to kImageSize x kImageSize pixels by averaging, and
// store red, green and blue, 0 to 255. Here it stays black.
void takeImage() {}

void setup() {
  Serial.begin(115200);
  while (!BeginClassifier()) {
    Serial.println("The model cannot start. Is kArenaSize in model.h too large for this board, or too small?");
    delay(5000);
  }
}

void loop() {
  takeImage();
  Answer answer;
  const unsigned long started = millis();
  if (!Classify(image, &answer)) {
    Serial.println("The model failed.");
  } else {
    Serial.print(answer.unsure ? "unsure, perhaps " : "");
    Serial.print(kLabels[answer.best]);
    Serial.print(" ");
    Serial.print(answer.probabilities[answer.best] * 100);
    Serial.print(" % in ");
    Serial.print(millis() - started);
    Serial.println(" ms");
  }
  delay(1000);
}
