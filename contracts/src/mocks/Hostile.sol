// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title HostileToken
/// @notice For tests of the settlement: keeps a part of each transfer, or calls back in the middle of one.
contract HostileToken is ERC20 {
    uint256 public keptBps;
    address public callbackTarget;
    bytes public callbackData;
    bool public callbackSucceeded;

    constructor() ERC20("Hostile", "HOST") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setKept(uint256 bps) external {
        keptBps = bps;
    }

    function setCallback(address target, bytes calldata data) external {
        (callbackTarget, callbackData) = (target, data);
    }

    function _update(address from, address to, uint256 value) internal override {
        uint256 kept = from == address(0) ? 0 : value * keptBps / 10_000;
        super._update(from, to, value - kept);
        if (kept > 0) super._update(from, address(0), kept);
        if (callbackTarget != address(0) && from != address(0)) {
            (bool success,) = callbackTarget.call(callbackData);
            callbackSucceeded = callbackSucceeded || success;
        }
    }
}

/// @title MockWallet
/// @notice An ERC-1271 wallet of one key.
contract MockWallet {
    address public immutable key;

    constructor(address key_) {
        key = key_;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        return ECDSA.recoverCalldata(digest, signature) == key ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }

    function approve(ERC20 token, address spender, uint256 amount) external {
        token.approve(spender, amount);
    }
}
