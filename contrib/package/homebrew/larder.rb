# Copy this file to the folder Formula of a tap. It builds the git repository that HOMEBREW_LARDER_REPOSITORY names:
#   HOMEBREW_LARDER_REPOSITORY=$PWD brew install --HEAD TAP/larder
class Larder < Formula
  desc "Caching registry for cargo and rustup that can be filled before you go offline"
  homepage "https://git.example/larder"
  license any_of: ["MIT", "Apache-2.0"]
  head ENV.fetch("HOMEBREW_LARDER_REPOSITORY", "https://git.example/larder.git"), using: :git, branch: "main"

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    generate_completions_from_executable(bin/"larder", "completions", shells: [:bash, :zsh, :fish])
    system bin/"larder", "man", "--folder", buildpath/"man1"
    man1.install Dir["man1/*.1"]
  end

  service do
    run [opt_bin/"larder", "serve"]
    keep_alive true
    log_path var/"log/larder.log"
    error_log_path var/"log/larder.log"
  end

  test do
    (testpath/"Cargo.toml").write <<~TOML
      [package]
      name = "empty"
      version = "0.1.0"
      edition = "2021"
    TOML
    (testpath/"src/lib.rs").write ""
    (testpath/"Cargo.lock").write <<~TOML
      version = 4

      [[package]]
      name = "empty"
      version = "0.1.0"
    TOML
    system bin/"larder", "check", "--store", testpath/"store", testpath
  end
end
