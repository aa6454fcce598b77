"""What deraining is for: how well detectors and segmenters see in restored images."""
