# nix-build -E '(import <nixpkgs> {}).callPackage ./contrib/package/nix/package.nix {}'
{
  lib,
  rustPlatform,
  installShellFiles,
}:
let
  root = ../../..;
in
rustPlatform.buildRustPackage {
  pname = "larder";
  inherit ((lib.importTOML (root + "/Cargo.toml")).package) version;
  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      (root + "/Cargo.toml")
      (root + "/Cargo.lock")
      (root + "/.cargo")
      (root + "/src")
      (root + "/contrib")
    ];
  };
  cargoLock.lockFile = root + "/Cargo.lock";
  # The tests use real rustup, cargo and a network on loopback.
  doCheck = false;
  nativeBuildInputs = [ installShellFiles ];
  postInstall = ''
    $out/bin/larder man --folder man
    installManPage man/*.1
    for shell in bash zsh fish; do
      $out/bin/larder completions $shell >larder.$shell
      installShellCompletion --cmd larder --$shell larder.$shell
    done
  '';
  meta = {
    description = "Caching registry for cargo and rustup that can be filled before you go offline";
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "larder";
    platforms = lib.platforms.unix;
  };
}
