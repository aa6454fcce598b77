% The protocols rain13k and did, written from the papers' descriptions: tools/benchmark.py scores
% races evaluate.py against this script.
%
%   octave-cli score_pairs.m FOLDER PROTOCOL NUMBER
%
% scores FOLDER/input/1.png to NUMBER.png against those of FOLDER/target and prints processor seconds,
% mean PSNR and mean SSIM. The time includes reading the files. Needs octave and octave-image.

1;  % a script, not a function file

function value = ssim_of(x, y)
  window = fspecial ("gaussian", 11, 1.5);
  c1 = (0.01 * 255) ^ 2;
  c2 = (0.03 * 255) ^ 2;
  mean_x = filter2 (window, x, "valid");
  mean_y = filter2 (window, y, "valid");
  var_x = filter2 (window, x .* x, "valid") - mean_x .^ 2;
  var_y = filter2 (window, y .* y, "valid") - mean_y .^ 2;
  cov_xy = filter2 (window, x .* y, "valid") - mean_x .* mean_y;
  map = ((2 * mean_x .* mean_y + c1) .* (2 * cov_xy + c2)) ...
        ./ ((mean_x .^ 2 + mean_y .^ 2 + c1) .* (var_x + var_y + c2));
  value = mean (map(:));
end

function value = shrunken (x)
  f = max (1, round (min (size (x)) / 256));
  if f > 1
    x = imfilter (x, ones (f) / f ^ 2, "symmetric");
    x = x(1:f:end, 1:f:end);
  end
  value = x;
end

function [psnr, ssim] = score_rain13k (restored, clean)
  x = double (rgb2ycbcr (restored)(:, :, 1));
  y = double (rgb2ycbcr (clean)(:, :, 1));
  psnr = 20 * log10 (255 / sqrt (mean ((x(:) - y(:)) .^ 2)));
  ssim = ssim_of (x, y);
end

function [psnr, ssim] = score_did (restored, clean)
  x = rgb2ycbcr (im2double (restored))(:, :, 1);
  y = rgb2ycbcr (im2double (clean))(:, :, 1);
  psnr = 10 * log10 (1 / mean ((x(:) - y(:)) .^ 2));
  ssim = ssim_of (shrunken (x * 255), shrunken (y * 255));
end

pkg load image
arguments = argv ();
folder = arguments{1};
scorer = str2func (["score_" arguments{2}]);
number = str2double (arguments{3});
scores = zeros (number, 2);
start = cputime ();
for i = 1:number
  name = sprintf ("%d.png", i);
  restored = imread (fullfile (folder, "input", name));
  clean = imread (fullfile (folder, "target", name));
  [scores(i, 1), scores(i, 2)] = scorer (restored, clean);
end
printf ("%.9g %.12g %.12g\n", cputime () - start, mean (scores, 1));
