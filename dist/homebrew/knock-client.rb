# The client on macOS and Linux. The release puts the address and the sum of the source archive in.
class KnockClient < Formula
  desc "Client of a port-knocking firewall: single packet authorization and sequences"
  homepage "https://knock.invalid"
  url "https://knock.invalid/knock-0.1.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args(path: "knock-client")
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/knock-client --version")
  end
end
