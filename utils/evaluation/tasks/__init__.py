"""What deraining is for: how well detectors and segmenters perform on restored images."""
