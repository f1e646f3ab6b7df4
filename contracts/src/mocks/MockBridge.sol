// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title MockBridge
/// @notice One end of a bridge between local chains: fee, capacity and delay are stated, a relayer delivers.
/// @dev TRUST: the relayer decides what is delivered. For local chains only.
contract MockBridge {
    using SafeERC20 for IERC20;

    /// @param destToken What arrives.
    /// @param fixedFee Taken from each transfer.
    /// @param feeBps Taken besides, rounded up, in basis points of the amount sent.
    /// @param capacity What may still be sent.
    /// @param delaySeconds Time until delivery.
    struct Route {
        address destToken;
        uint256 fixedFee;
        uint256 feeBps;
        uint256 capacity;
        uint64 delaySeconds;
    }

    address public immutable relayer;
    uint256 public sent;
    mapping(address token => mapping(uint256 chain => Route)) private _routes;
    mapping(bytes32 sourceId => bool) public delivered;

    event Sent(
        bytes32 indexed id,
        address indexed token,
        uint256 amount,
        uint256 destChain,
        address destToken,
        uint256 amountOut,
        address receiver,
        uint256 notBefore
    );
    event Delivered(bytes32 indexed sourceId, address token, address receiver, uint256 amount);

    error OnlyRelayer(address caller);
    error NoRoute(address token, uint256 destChain);
    error AboveCapacity(uint256 capacity);
    error BelowFee(uint256 amount);
    error AlreadyDelivered(bytes32 sourceId);

    constructor() {
        relayer = msg.sender;
    }

    function setRoute(address token, uint256 destChain, Route calldata terms) external {
        if (msg.sender != relayer) revert OnlyRelayer(msg.sender);
        _routes[token][destChain] = terms;
    }

    function route(address token, uint256 destChain) external view returns (Route memory) {
        return _routes[token][destChain];
    }

    /// @notice Sends `amount` to `receiver` on `destChain`; what arrives is amount − fixedFee − ⌈amount·feeBps/1e4⌉.
    function send(address token, uint256 destChain, uint256 amount, address receiver)
        external
        returns (uint256 amountOut)
    {
        Route storage terms = _routes[token][destChain];
        if (terms.destToken == address(0)) revert NoRoute(token, destChain);
        if (amount > terms.capacity) revert AboveCapacity(terms.capacity);
        uint256 fee = terms.fixedFee + (amount * terms.feeBps + 9_999) / 10_000;
        if (amount <= fee) revert BelowFee(amount);
        amountOut = amount - fee;
        terms.capacity -= amount;
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
        emit Sent(
            keccak256(abi.encode(block.chainid, address(this), ++sent)),
            token,
            amount,
            destChain,
            terms.destToken,
            amountOut,
            receiver,
            block.timestamp + terms.delaySeconds
        );
    }

    /// @notice Pays a transfer that was sent on another chain, once.
    function deliver(bytes32 sourceId, address token, address receiver, uint256 amount) external {
        if (msg.sender != relayer) revert OnlyRelayer(msg.sender);
        if (delivered[sourceId]) revert AlreadyDelivered(sourceId);
        delivered[sourceId] = true;
        emit Delivered(sourceId, token, receiver, amount);
        IERC20(token).safeTransfer(receiver, amount);
    }
}
